// Package grug runs byte-level language models with libgrug.
//
//	model, err := grug.Load("model.safetensors", nil)
//	session, err := model.NewSession(nil)
//	sampler, err := grug.NewSampler(grug.SamplerOptions{Temperature: 0.8})
//	fmt.Fprint(session, "ROMEO:\n")
//	io.Copy(os.Stdout, session.Reader(ctx, sampler, grug.Generation{MaxBytes: 400}))
//
// A Model may be used by many goroutines at once. A Session or a Sampler serves one at a time: a second call returns
// ErrBusy at once. Handles are freed by Close, or when they are collected.
//
// The package finds libgrug by pkg-config; scripts/install of the repository puts it in place.
package grug

/*
#cgo pkg-config: grug
#include <grug.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"runtime"
	"sync"
	"unsafe"
)

// Error is a failed call of libgrug. Compare it with errors.Is against ErrBusy and its like.
type Error struct {
	// Status is the number of grug.h.
	Status int
	// Message names the file, tensor or option at fault.
	Message string
}

// Error is the message and the name of the status.
func (e *Error) Error() string {
	if e.Message == "" {
		return "grug: " + e.Name()
	}
	return "grug: " + e.Message
}

// Name is the name of the status, such as GRUG_EIO.
func (e *Error) Name() string {
	return C.GoString(C.grug_status_name(C.grug_status(e.Status)))
}

// Is compares statuses.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Status == e.Status && other.Message == ""
}

// Errors to compare with errors.Is.
var (
	ErrInvalid     = &Error{Status: C.GRUG_EINVAL}
	ErrIO          = &Error{Status: C.GRUG_EIO}
	ErrFormat      = &Error{Status: C.GRUG_EFORMAT}
	ErrVersion     = &Error{Status: C.GRUG_EVERSION}
	ErrDevice      = &Error{Status: C.GRUG_EDEVICE}
	ErrCanceled    = &Error{Status: C.GRUG_ECANCELED}
	ErrBusy        = &Error{Status: C.GRUG_EBUSY}
	ErrFull        = &Error{Status: C.GRUG_EFULL}
	ErrRewind      = &Error{Status: C.GRUG_EREWIND}
	ErrMismatch    = &Error{Status: C.GRUG_EMISMATCH}
	ErrDeadEnd     = &Error{Status: C.GRUG_EDEADEND}
	ErrNotFound    = &Error{Status: C.GRUG_ENOTFOUND}
	ErrUnsupported = &Error{Status: C.GRUG_EUNSUPPORTED}
	ErrPanic       = &Error{Status: C.GRUG_EPANIC}
	// ErrClosed is the use of a handle after Close.
	ErrClosed = errors.New("grug: closed")
)

func check(status C.int32_t, e *C.grug_error) error {
	if status >= 0 {
		return nil
	}
	return &Error{Status: int(status), Message: C.GoString(&e.message[0])}
}

// Version is the release of libgrug.
func Version() string {
	return C.GoString(C.grug_version())
}

// data is the address of the first byte, or nil.
func data(p []byte) *C.uint8_t {
	return (*C.uint8_t)(unsafe.SliceData(p))
}

// Model is immutable weights. Sessions keep what they need of it.
type Model struct {
	mu      sync.RWMutex
	handle  *C.grug_model
	cleanup runtime.Cleanup
}

// ModelOptions say how to load a model. The zero value is the default.
type ModelOptions struct {
	// Threads that compute: 0 = one for each core, 1 = the calling one alone.
	Threads int
	// NoMmap reads the file into memory instead of mapping it.
	NoMmap bool
	// Device to compute on; "" is the CPU.
	Device string
}

// Load loads a model file. options may be nil.
func Load(path string, options *ModelOptions) (*Model, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return load(options, func(o *C.grug_model_options, out **C.grug_model, e *C.grug_error) C.int32_t {
		return C.grug_model_load_file(name, o, out, e)
	})
}

// LoadBytes loads a model file that is in memory, and copies it. options may be nil.
func LoadBytes(file []byte, options *ModelOptions) (*Model, error) {
	return load(options, func(o *C.grug_model_options, out **C.grug_model, e *C.grug_error) C.int32_t {
		return C.grug_model_load_buffer(data(file), C.size_t(len(file)), C.GRUG_LOAD_COPY, o, out, e)
	})
}

func load(
	options *ModelOptions, call func(*C.grug_model_options, **C.grug_model, *C.grug_error) C.int32_t,
) (*Model, error) {
	var c C.grug_model_options
	c.size = C.sizeof_grug_model_options
	if options != nil {
		if options.Threads < 0 {
			return nil, &Error{Status: C.GRUG_EINVAL, Message: "Threads is negative"}
		}
		c.n_threads = C.uint32_t(options.Threads)
		if options.NoMmap {
			c.flags |= C.GRUG_MODEL_NO_MMAP
		}
		if options.Device != "" {
			c.device = C.CString(options.Device)
			defer C.free(unsafe.Pointer(c.device))
		}
	}
	var handle *C.grug_model
	var e C.grug_error
	if err := check(call(&c, &handle, &e), &e); err != nil {
		return nil, err
	}
	m := &Model{handle: handle}
	m.cleanup = runtime.AddCleanup(m, func(h *C.grug_model) { C.grug_model_free(h) }, handle)
	return m, nil
}

// Close frees the handle. Sessions go on.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handle != nil {
		m.cleanup.Stop()
		C.grug_model_free(m.handle)
		m.handle = nil
	}
	return nil
}

// use lends the handle to a call.
func (m *Model) use(call func(*C.grug_model) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.handle == nil {
		return ErrClosed
	}
	return call(m.handle)
}

// ModelInfo is what a model is.
type ModelInfo struct {
	Params       uint64 // trained numbers
	WeightBytes  uint64
	Fingerprint  uint64 // a hash of configuration and weights
	ContextBytes uint64 // what a prediction can look back on
	StateBytes   uint64 // the most bytes of a saved session
	RewindBytes  uint64 // how far Rewind always works
	EmbeddingDim int
	EndByte      int // the byte that ends a document, or -1
}

// Info describes the model.
func (m *Model) Info() (ModelInfo, error) {
	var c C.grug_model_info
	c.size = C.sizeof_grug_model_info
	var e C.grug_error
	err := m.use(func(h *C.grug_model) error { return check(C.grug_model_get_info(h, &c, &e), &e) })
	return ModelInfo{
		Params: uint64(c.n_params), WeightBytes: uint64(c.weight_bytes), Fingerprint: uint64(c.fingerprint),
		ContextBytes: uint64(c.context_bytes), StateBytes: uint64(c.state_bytes),
		RewindBytes: uint64(c.rewind_bytes), EmbeddingDim: int(c.embedding_dim), EndByte: int(c.end_byte),
	}, err
}

// sized runs a call that wants a buffer and says how large it must be.
func sized(call func(*C.char, *C.size_t, *C.grug_error) C.int32_t) ([]byte, error) {
	var n C.size_t
	var e C.grug_error
	status := call(nil, &n, &e)
	if status != C.GRUG_ESPACE {
		return nil, check(status, &e)
	}
	buffer := make([]byte, int(n))
	status = call((*C.char)(unsafe.Pointer(&buffer[0])), &n, &e)
	return buffer[:int(n)], check(status, &e)
}

// Metadata is the metadata of the model file.
func (m *Model) Metadata() (map[string]string, error) {
	entries := map[string]string{}
	err := m.use(func(h *C.grug_model) error {
		for i := 0; ; i++ {
			key, err := sized(func(to *C.char, n *C.size_t, e *C.grug_error) C.int32_t {
				return C.grug_model_get_metadata_key(h, C.size_t(i), to, n, e)
			})
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			name := C.CString(string(key))
			value, err := sized(func(to *C.char, n *C.size_t, e *C.grug_error) C.int32_t {
				return C.grug_model_get_metadata(h, name, to, n, e)
			})
			C.free(unsafe.Pointer(name))
			if err != nil {
				return err
			}
			entries[string(key)] = string(value)
		}
	})
	return entries, err
}

// SamplerOptions say how a byte is picked. The zero value is greedy; 0 turns a filter off.
type SamplerOptions struct {
	Temperature float32
	TopK        int
	TopP        float32
	MinP        float32
	Seed        uint64
}

// Sampler picks bytes.
type Sampler struct {
	mu      sync.Mutex
	handle  *C.grug_sampler
	cleanup runtime.Cleanup
}

// NewSampler makes a sampler.
func NewSampler(options SamplerOptions) (*Sampler, error) {
	if options.TopK < 0 {
		return nil, &Error{Status: C.GRUG_EINVAL, Message: "TopK is negative"}
	}
	var c C.grug_sampler_options
	c.size = C.sizeof_grug_sampler_options
	c.seed = C.uint64_t(options.Seed)
	c.temperature = C.float(options.Temperature)
	c.top_k = C.uint32_t(options.TopK)
	c.top_p = C.float(options.TopP)
	c.min_p = C.float(options.MinP)
	var handle *C.grug_sampler
	var e C.grug_error
	if err := check(C.grug_sampler_new(&c, &handle, &e), &e); err != nil {
		return nil, err
	}
	return newSampler(handle), nil
}

func newSampler(handle *C.grug_sampler) *Sampler {
	s := &Sampler{handle: handle}
	s.cleanup = runtime.AddCleanup(s, func(h *C.grug_sampler) { C.grug_sampler_free(h) }, handle)
	return s
}

// use lends the handle to a call; a nil sampler is greedy and lends nil.
func (s *Sampler) use(call func(*C.grug_sampler) error) error {
	if s == nil {
		return call(nil)
	}
	if !s.mu.TryLock() {
		return ErrBusy
	}
	defer s.mu.Unlock()
	if s.handle == nil {
		return ErrClosed
	}
	return call(s.handle)
}

// Reset makes the sampler as new, with this seed.
func (s *Sampler) Reset(seed uint64) error {
	var e C.grug_error
	return s.use(func(h *C.grug_sampler) error { return check(C.grug_sampler_reset(h, C.uint64_t(seed), &e), &e) })
}

// Fork makes a sampler that goes on as this one would.
func (s *Sampler) Fork() (*Sampler, error) {
	var handle *C.grug_sampler
	var e C.grug_error
	err := s.use(func(h *C.grug_sampler) error { return check(C.grug_sampler_fork(h, &handle, &e), &e) })
	if err != nil {
		return nil, err
	}
	return newSampler(handle), nil
}

// Pick picks a byte from logits, which may have been edited.
func (s *Sampler) Pick(logits *[256]float32) (byte, error) {
	var e C.grug_error
	var picked C.int32_t
	err := s.use(func(h *C.grug_sampler) error {
		picked = C.grug_sampler_pick(h, (*C.float)(unsafe.Pointer(logits)), &e)
		return check(picked, &e)
	})
	return byte(picked), err
}

// Close frees the sampler, after the call that uses it.
func (s *Sampler) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle != nil {
		s.cleanup.Stop()
		C.grug_sampler_free(s.handle)
		s.handle = nil
	}
	return nil
}
