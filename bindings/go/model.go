package grug

/*
#include <grug.h>
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// Model is immutable weights. Sessions keep what they need of it.
type Model struct {
	mu      sync.RWMutex
	handles modelHandles
	cleanup runtime.Cleanup
}

// modelHandles are what a model owns.
type modelHandles struct {
	model *C.grug_model
	hooks *hooks
}

func (h modelHandles) free() {
	C.grug_model_free(h.model)
	h.hooks.release()
}

// ModelOptions say how to load a model. The zero value is the default.
type ModelOptions struct {
	// Threads that compute: 0 = one for each core, 1 = the calling one alone.
	Threads int
	// NoMmap reads the file into memory instead of mapping it.
	NoMmap bool
	// Mlock keeps the weights in memory: the system may not page them out.
	Mlock bool
	// Portable makes logits the same bit by bit on every machine, more slowly. Compression needs it.
	Portable bool
	// NoSelfCheck leaves out the comparison of a GPU with the CPU while loading.
	NoSelfCheck bool
	// Device to compute on, by its name in Devices; "" is the CPU, "auto" the best.
	Device string
	// Progress hears how far loading is, from 0 to 1; an error stops loading, and Load returns it.
	Progress func(fraction float64) error
	// Log receives what the library has to say, as long as the model or a session of it lives. nil is silence.
	Log *slog.Logger
}

// Device is what a model can run on.
type Device struct {
	Name        string // for ModelOptions: cpu, cuda:0, wgpu:0
	Description string // what its maker calls it
	Features    string // what it can do, separated by commas
	MemoryTotal uint64 // bytes; 0 where unknown
	MemoryFree  uint64 // bytes; 0 where unknown
}

// Devices are those of this machine that this build of libgrug can use; the CPU is the first.
func Devices() ([]Device, error) {
	devices := make([]Device, int(C.grug_device_count()))
	for i := range devices {
		c := C.grug_device{size: C.sizeof_grug_device}
		var e C.grug_error
		if err := check(C.grug_device_get(C.uint32_t(i), &c, &e), &e); err != nil {
			return nil, err
		}
		devices[i] = Device{
			Name: C.GoString(&c.name[0]), Description: C.GoString(&c.description[0]), Features: C.GoString(&c.features[0]),
			MemoryTotal: uint64(c.memory_total), MemoryFree: uint64(c.memory_free),
		}
	}
	return devices, nil
}

// Load loads a model file, until ctx is done. options may be nil.
func Load(ctx context.Context, path string, options *ModelOptions) (*Model, error) {
	name, err := cString("the path", path)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(name))
	return load(ctx, options, func(o *C.grug_model_options, out **C.grug_model, e *C.grug_error) C.int32_t {
		return C.grug_model_load_file(name, o, out, e)
	})
}

// LoadBytes loads a model file that is in memory, and copies it. options may be nil.
func LoadBytes(ctx context.Context, file []byte, options *ModelOptions) (*Model, error) {
	return load(ctx, options, func(o *C.grug_model_options, out **C.grug_model, e *C.grug_error) C.int32_t {
		return C.grug_model_load_buffer(data(file), C.size_t(len(file)), C.GRUG_LOAD_COPY, o, out, e)
	})
}

func load(
	ctx context.Context, options *ModelOptions,
	call func(*C.grug_model_options, **C.grug_model, *C.grug_error) C.int32_t,
) (*Model, error) {
	if options == nil {
		options = &ModelOptions{}
	}
	if options.Threads < 0 || uint64(options.Threads) > math.MaxUint32 {
		return nil, invalid("Threads = %d: out of range", options.Threads)
	}
	c := C.grug_model_options{size: C.sizeof_grug_model_options, n_threads: C.uint32_t(options.Threads)}
	for flag, set := range map[C.uint32_t]bool{
		C.GRUG_MODEL_NO_MMAP: options.NoMmap, C.GRUG_MODEL_MLOCK: options.Mlock, C.GRUG_MODEL_PORTABLE: options.Portable,
		C.GRUG_MODEL_NO_SELF_CHECK: options.NoSelfCheck,
	} {
		if set {
			c.flags |= flag
		}
	}
	if options.Device != "" {
		device, err := cString("Device", options.Device)
		if err != nil {
			return nil, err
		}
		c.device = device
		defer C.free(unsafe.Pointer(c.device))
	}
	hooks := newHooks(options)
	hooks.set(&c)
	var handle *C.grug_model
	var e C.grug_error
	err := withToken(ctx, func(token *C.grug_cancel) error {
		c.cancel = token
		return check(call(&c, &handle, &e), &e)
	})
	if stopped := hooks.stoppedBy(); stopped != nil && err != nil {
		err = stopped
	}
	if err != nil {
		hooks.release()
		return nil, err
	}
	m := &Model{handles: modelHandles{handle, hooks}}
	m.cleanup = runtime.AddCleanup(m, modelHandles.free, m.handles)
	return m, nil
}

// Close frees the handle. Sessions go on.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handles.model != nil {
		m.cleanup.Stop()
		m.handles.free()
		m.handles = modelHandles{}
	}
	return nil
}

// use lends the handle to a call.
func (m *Model) use(call func(*C.grug_model) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.handles.model == nil {
		return ErrClosed
	}
	return call(m.handles.model)
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
