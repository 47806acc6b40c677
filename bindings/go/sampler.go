package grug

/*
#include <grug.h>
*/
import "C"

import (
	"math"
	"runtime"
	"sync"
	"unsafe"
)

// GrammarKind is the notation of a grammar.
type GrammarKind uint32

// Notations of grammars.
const (
	Regex      GrammarKind = C.GRUG_GRAMMAR_REGEX       // a regular expression, in the syntax of Rust's regex crate
	GBNF       GrammarKind = C.GRUG_GRAMMAR_GBNF        // the notation of llama.cpp; the rule root is the text
	JSONSchema GrammarKind = C.GRUG_GRAMMAR_JSON_SCHEMA // one JSON value that is valid under a schema
)

// Grammar is what a sampler may write: immutable, for any number of samplers and goroutines.
type Grammar struct {
	mu      sync.RWMutex
	handle  *C.grug_grammar
	cleanup runtime.Cleanup
}

// NewGrammar compiles a grammar.
func NewGrammar(kind GrammarKind, source string) (*Grammar, error) {
	var handle *C.grug_grammar
	var e C.grug_error
	text := (*C.char)(unsafe.Pointer(unsafe.StringData(source)))
	status := C.grug_grammar_new(C.uint32_t(kind), text, C.size_t(len(source)), &handle, &e)
	if err := check(status, &e); err != nil {
		return nil, err
	}
	g := &Grammar{handle: handle}
	g.cleanup = runtime.AddCleanup(g, func(h *C.grug_grammar) { C.grug_grammar_free(h) }, handle)
	return g, nil
}

// Close frees the handle. Samplers that have the grammar go on.
func (g *Grammar) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.handle != nil {
		g.cleanup.Stop()
		C.grug_grammar_free(g.handle)
		g.handle = nil
	}
	return nil
}

// SamplerOptions say how a byte is picked. The zero value is greedy; 0 turns each part off.
//
// The order is: Bias, Grammar and UTF8, penalties, Temperature, TopK, TypicalP, TopP, MinP, draw. Mirostat stands in
// place of the four before the draw.
type SamplerOptions struct {
	// Seed is used as it is: the same seed gives the same bytes.
	Seed uint64
	// Temperature divides the logits.
	Temperature float32
	// TopK keeps so many of the likeliest bytes.
	TopK int
	// TopP keeps the likeliest bytes that together have this probability.
	TopP float32
	// MinP keeps bytes at least this fraction as likely as the likeliest.
	MinP float32
	// TypicalP keeps the bytes whose surprise is nearest to the expected one, until they have this probability.
	TypicalP float32
	// PenaltyWindow is how many of the last picked bytes the three penalties count.
	PenaltyWindow int
	// RepeatPenalty divides positive logits of bytes in the window, and multiplies negative ones.
	RepeatPenalty float32
	// FrequencyPenalty is taken off a byte's logit for each time that it is in the window.
	FrequencyPenalty float32
	// PresencePenalty is taken off the logit of each byte in the window.
	PresencePenalty float32
	// MirostatTau keeps the surprise of the text near so many bits a byte; MirostatEta is how fast it learns.
	MirostatTau, MirostatEta float32
	// UTF8 only ever extends to well-formed UTF-8.
	UTF8 bool
	// Bias is added to the logits; minus infinity bans a byte. nil or 256 numbers, copied.
	Bias *[256]float32
	// Grammar is what may be written; nil is anything.
	Grammar *Grammar
}

// Sampler picks bytes.
type Sampler struct {
	mu      sync.Mutex
	handle  *C.grug_sampler
	cleanup runtime.Cleanup
}

// NewSampler makes a sampler.
func NewSampler(options SamplerOptions) (*Sampler, error) {
	if options.TopK < 0 || options.PenaltyWindow < 0 || uint64(options.PenaltyWindow) > math.MaxUint32 {
		return nil, invalid("TopK = %d, PenaltyWindow = %d: out of range", options.TopK, options.PenaltyWindow)
	}
	c := C.grug_sampler_options{
		size: C.sizeof_grug_sampler_options, seed: C.uint64_t(options.Seed),
		temperature: C.float(options.Temperature), top_k: C.uint32_t(min(options.TopK, math.MaxInt32)),
		top_p: C.float(options.TopP), min_p: C.float(options.MinP), typical_p: C.float(options.TypicalP),
		penalty_window: C.uint32_t(options.PenaltyWindow), repeat_penalty: C.float(options.RepeatPenalty),
		frequency_penalty: C.float(options.FrequencyPenalty), presence_penalty: C.float(options.PresencePenalty),
		mirostat_tau: C.float(options.MirostatTau), mirostat_eta: C.float(options.MirostatEta),
	}
	if options.UTF8 {
		c.flags |= C.GRUG_SAMPLE_UTF8
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	if options.Bias != nil {
		pinner.Pin(options.Bias)
		c.bias = (*C.float)(unsafe.Pointer(options.Bias))
	}
	if g := options.Grammar; g != nil {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if g.handle == nil {
			return nil, ErrClosed
		}
		c.grammar = g.handle
	}
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

// Accept takes a byte that was chosen elsewhere as if it had been picked here; ErrDeadEnd where grammar or UTF-8 do not
// allow it.
func (s *Sampler) Accept(b byte) error {
	var e C.grug_error
	return s.use(func(h *C.grug_sampler) error { return check(C.grug_sampler_accept(h, C.uint8_t(b), &e), &e) })
}

// ByteSet is a set of bytes.
type ByteSet [32]byte

// Has says whether a byte is in the set.
func (s *ByteSet) Has(b byte) bool { return s[b>>3]>>(b&7)&1 != 0 }

// Allowed is the set of bytes that may come next by Bias, Grammar and UTF8, and whether the text may end here.
func (s *Sampler) Allowed() (set ByteSet, complete bool, err error) {
	var e C.grug_error
	err = s.use(func(h *C.grug_sampler) error {
		status := C.grug_sampler_allowed(h, (*C.uint8_t)(unsafe.Pointer(&set)), &e)
		complete = status == 1
		return check(status, &e)
	})
	return set, complete, err
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
