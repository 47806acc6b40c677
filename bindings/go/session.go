package grug

/*
#include <grug.h>
*/
import "C"

import (
	"context"
	"runtime"
	"sync"
	"unsafe"
)

// SessionOptions say how a session behaves. The zero value is the default.
type SessionOptions struct {
	// MaxContext is how many bytes a prediction looks back on at most; 0 = the model's context.
	MaxContext uint64
	// NoSlide makes a full context an error, ErrFull, instead of forgetting the oldest bytes.
	NoSlide bool
	// NoDrafts computes a byte at a time, without drafts of what may come. Only time depends on it.
	NoDrafts bool
}

// Session is one stream of bytes. It is an io.Writer that feeds the model, and Reader is what the model writes.
//
// An empty session that is asked for a prediction begins with a byte 0 of its own, which Position does not count.
type Session struct {
	// mu is held during a call; nobody waits for it but Close.
	mu      sync.Mutex
	handles sessionHandles
	cleanup runtime.Cleanup
}

// sessionHandles are what a session owns. The token is the session's own: contexts trigger it.
type sessionHandles struct {
	session *C.grug_session
	cancel  *C.grug_cancel
	hooks   *hooks
}

func (h sessionHandles) free() {
	C.grug_session_free(h.session)
	C.grug_cancel_free(h.cancel)
	h.hooks.release()
}

// NewSession makes an empty session. options may be nil.
func (m *Model) NewSession(options *SessionOptions) (*Session, error) {
	cancel := C.grug_cancel_new()
	if cancel == nil {
		return nil, &Error{Status: C.GRUG_ENOMEM}
	}
	var c C.grug_session_options
	c.size = C.sizeof_grug_session_options
	c.cancel = cancel
	if options != nil {
		c.max_context = C.uint64_t(options.MaxContext)
		if options.NoSlide {
			c.overflow = C.GRUG_OVERFLOW_ERROR
		}
		if options.NoDrafts {
			c.flags = C.GRUG_SESSION_NO_DRAFTS
		}
	}
	var handle *C.grug_session
	var hooks *hooks
	var e C.grug_error
	err := m.use(func(h *C.grug_model) error {
		hooks = m.handles.hooks.retain()
		return check(C.grug_session_new(h, &c, &handle, &e), &e)
	})
	if err != nil {
		C.grug_cancel_free(cancel)
		hooks.release()
		return nil, err
	}
	return newSession(sessionHandles{handle, cancel, hooks}), nil
}

func newSession(handles sessionHandles) *Session {
	s := &Session{handles: handles}
	s.cleanup = runtime.AddCleanup(s, sessionHandles.free, handles)
	return s
}

// Fork makes an independent session at this position.
func (s *Session) Fork() (*Session, error) {
	cancel := C.grug_cancel_new()
	if cancel == nil {
		return nil, &Error{Status: C.GRUG_ENOMEM}
	}
	var fork *C.grug_session
	var hooks *hooks
	var e C.grug_error
	err := s.use(context.Background(), func(h *C.grug_session) error {
		if err := check(C.grug_session_fork(h, &fork, &e), &e); err != nil {
			return err
		}
		hooks = s.handles.hooks.retain()
		// A fork shares the token of its origin; contexts need one for each.
		return check(C.grug_session_set_cancel(fork, cancel, &e), &e)
	})
	if err != nil {
		sessionHandles{fork, cancel, hooks}.free()
		return nil, err
	}
	return newSession(sessionHandles{fork, cancel, hooks}), nil
}

// use lends the session to a call, which ctx may cancel.
func (s *Session) use(ctx context.Context, call func(*C.grug_session) error) error {
	if !s.mu.TryLock() {
		return ErrBusy
	}
	defer s.mu.Unlock()
	if s.handles.session == nil {
		return ErrClosed
	}
	return cancelable(ctx, s.handles.cancel, func() error { return call(s.handles.session) })
}

// Close frees the session, after the call that uses it.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handles.session != nil {
		s.cleanup.Stop()
		s.handles.free()
		s.handles = sessionHandles{}
	}
	return nil
}

// Reset makes the session empty again.
func (s *Session) Reset() error {
	var e C.grug_error
	return s.use(context.Background(), func(h *C.grug_session) error { return check(C.grug_session_reset(h, &e), &e) })
}

// Position is how many bytes were consumed, fed and generated.
func (s *Session) Position() (uint64, error) {
	var position uint64
	err := s.use(context.Background(), func(h *C.grug_session) error {
		position = uint64(C.grug_session_position(h))
		return nil
	})
	return position, err
}

// Write feeds bytes. Where it fails, n of them were taken in.
func (s *Session) Write(p []byte) (n int, err error) {
	return s.Feed(context.Background(), p)
}

// Feed feeds bytes, until ctx is done. Where it fails, n of them were taken in.
func (s *Session) Feed(ctx context.Context, p []byte) (n int, err error) {
	var e C.grug_error
	err = s.use(ctx, func(h *C.grug_session) error {
		before := C.grug_session_position(h)
		err := check(C.grug_session_feed(h, data(p), C.size_t(len(p)), &e), &e)
		n = int(C.grug_session_position(h) - before)
		return err
	})
	return n, err
}

// Next picks the next byte and takes it in. A nil sampler is greedy.
func (s *Session) Next(ctx context.Context, sampler *Sampler) (byte, error) {
	var e C.grug_error
	var next C.int32_t
	err := s.use(ctx, func(h *C.grug_session) error {
		return sampler.use(func(picks *C.grug_sampler) error {
			next = C.grug_session_next(h, picks, &e)
			return check(next, &e)
		})
	})
	return byte(next), err
}

// Score feeds bytes and says how surprising they are together, in nats; divide by ln 2 for bits. nats may be nil, or
// receives those of each byte.
func (s *Session) Score(ctx context.Context, p []byte, nats []float32) (float64, error) {
	if nats != nil && len(nats) != len(p) {
		return 0, invalid("%d numbers for %d bytes", len(nats), len(p))
	}
	var e C.grug_error
	var total C.double
	err := s.use(ctx, func(h *C.grug_session) error {
		to := (*C.float)(unsafe.Pointer(unsafe.SliceData(nats)))
		return check(C.grug_session_score(h, data(p), C.size_t(len(p)), to, &total, &e), &e)
	})
	return float64(total), err
}

// Logits are those of the next byte.
func (s *Session) Logits() (logits [256]float32, err error) {
	var e C.grug_error
	err = s.use(context.Background(), func(h *C.grug_session) error {
		return check(C.grug_session_get_logits(h, (*C.float)(unsafe.Pointer(&logits)), &e), &e)
	})
	return logits, err
}

// Embedding fills the vector that the logits are computed from; its length must be the model's EmbeddingDim.
func (s *Session) Embedding(vector []float32) error {
	var e C.grug_error
	return s.use(context.Background(), func(h *C.grug_session) error {
		to := (*C.float)(unsafe.Pointer(unsafe.SliceData(vector)))
		return check(C.grug_session_get_embedding(h, to, C.size_t(len(vector)), &e), &e)
	})
}

// Rewind undoes the last n bytes, exactly; ErrRewind where that is too far, and nothing has changed.
func (s *Session) Rewind(n uint64) error {
	var e C.grug_error
	return s.use(context.Background(), func(h *C.grug_session) error {
		return check(C.grug_session_rewind(h, C.uint64_t(n), &e), &e)
	})
}

// MarshalBinary is the session as bytes, which another session of the model continues from.
func (s *Session) MarshalBinary() (state []byte, err error) {
	err = s.use(context.Background(), func(h *C.grug_session) (err error) {
		state, err = sized(func(to *C.char, n *C.size_t, e *C.grug_error) C.int32_t {
			return C.grug_session_save(h, (*C.uint8_t)(unsafe.Pointer(to)), n, e)
		})
		return err
	})
	return state, err
}

// UnmarshalBinary makes the session what a saved one was.
func (s *Session) UnmarshalBinary(state []byte) error {
	var e C.grug_error
	return s.use(context.Background(), func(h *C.grug_session) error {
		return check(C.grug_session_restore(h, data(state), C.size_t(len(state)), &e), &e)
	})
}
