package grug

/*
#include <grug.h>
*/
import "C"

import (
	"context"
	"io"
	"iter"
	"runtime"
	"unicode/utf8"
	"unsafe"
)

// Why generation paused.
type StopReason int

const (
	StopCapacity StopReason = C.GRUG_STOP_CAPACITY // as many bytes as were asked for
	StopEndByte  StopReason = C.GRUG_STOP_END_BYTE // the model ended the document
	StopSequence StopReason = C.GRUG_STOP_SEQUENCE // a stop sequence appeared; it is included
	StopGrammar  StopReason = C.GRUG_STOP_GRAMMAR  // the grammar is complete
)

// Generation says when to stop, and how to stream.
type Generation struct {
	// MaxBytes ends the text after as many; 0 = no limit.
	MaxBytes int64
	// Stops end the text after one of them appeared; 1 to 256 bytes each.
	Stops [][]byte
	// ChunkBytes is how many bytes a Read waits for at most; 0 = 1, so that a reader sees each byte at once.
	ChunkBytes int
}

// generate fills a buffer.
func (s *Session) generate(
	ctx context.Context, sampler *Sampler, stops [][]byte, p []byte,
) (n int, reason StopReason, err error) {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	list := make([]C.grug_bytes, len(stops))
	for i, stop := range stops {
		list[i] = C.grug_bytes{data: data(stop), len: C.size_t(len(stop))}
		if len(stop) > 0 {
			pinner.Pin(unsafe.SliceData(stop))
		}
	}
	var e C.grug_error
	var written C.size_t
	err = s.use(ctx, func(h *C.grug_session) error {
		return sampler.use(func(picks *C.grug_sampler) error {
			status := C.grug_session_generate(h, picks, unsafe.SliceData(list), C.size_t(len(list)),
				data(p), C.size_t(len(p)), &written, &e)
			reason = StopReason(status)
			return check(status, &e)
		})
	})
	return int(written), reason, err
}

// Reader is text as the model writes it: each Read generates. It ends with io.EOF after MaxBytes bytes, a stop sequence or
// the end byte, and with an error when ctx is done. Reason says why.
type Reader struct {
	// Reason is why the text ended, once Read has returned io.EOF.
	Reason  StopReason
	ctx     context.Context
	session *Session
	sampler *Sampler
	g       Generation
	done    int64
	ended   bool
}

// Reader makes a reader of what the model writes. A nil sampler is greedy.
func (s *Session) Reader(ctx context.Context, sampler *Sampler, g Generation) *Reader {
	return &Reader{ctx: ctx, session: s, sampler: sampler, g: g}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.ended || (r.g.MaxBytes > 0 && r.done >= r.g.MaxBytes) {
		return 0, io.EOF
	}
	p = p[:min(len(p), max(r.g.ChunkBytes, 1))]
	if r.g.MaxBytes > 0 {
		p = p[:min(int64(len(p)), r.g.MaxBytes-r.done)]
	}
	n, reason, err := r.session.generate(r.ctx, r.sampler, r.g.Stops, p)
	r.done += int64(n)
	if err == nil {
		r.Reason = reason
		r.ended = reason != StopCapacity
	}
	return n, err
}

// Bytes iterates over the text as the model writes it; the error, if any, comes last.
//
//	for b, err := range session.Bytes(ctx, sampler, grug.Generation{MaxBytes: 100}) { … }
func (s *Session) Bytes(ctx context.Context, sampler *Sampler, g Generation) iter.Seq2[byte, error] {
	return func(yield func(byte, error) bool) {
		g.ChunkBytes = 1
		reader := s.Reader(ctx, sampler, g)
		var one [1]byte
		for {
			n, err := reader.Read(one[:])
			if n > 0 && !yield(one[0], nil) {
				return
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(0, err)
				return
			}
		}
	}
}

// Text iterates over the text in whole characters as the model writes it; what is no UTF-8 becomes U+FFFD. The error, if
// any, comes last.
func (s *Session) Text(ctx context.Context, sampler *Sampler, g Generation) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var pending []byte
		for b, err := range s.Bytes(ctx, sampler, g) {
			if err != nil {
				yield("", err)
				return
			}
			pending = append(pending, b)
			for len(pending) > 0 && utf8.FullRune(pending) {
				r, n := utf8.DecodeRune(pending)
				if !yield(string(r), nil) {
					return
				}
				pending = pending[n:]
			}
		}
		if len(pending) > 0 {
			yield(string(utf8.RuneError), nil)
		}
	}
}
