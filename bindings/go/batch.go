package grug

/*
#include <grug.h>
*/
import "C"

import (
	"context"
	"unsafe"
)

// Step is one session's part of a batch.
type Step struct {
	Session *Session
	// Sampler picks the byte; nil is greedy. It serves one session.
	Sampler *Sampler
	// Input, where it is not nil, is fed instead of a picked byte.
	Input *byte
}

// Picked is what became of a Step: a byte that its session took in, or what went wrong there.
type Picked struct {
	Byte byte
	Err  error
}

// NextBatch lets many distinct sessions of one model take a step together; what goes wrong in one stops no other. When
// the call itself fails, no session has moved.
func NextBatch(ctx context.Context, steps []Step) ([]Picked, error) {
	var e C.grug_error
	bytes := make([]C.int32_t, len(steps))
	err := withToken(ctx, func(token *C.grug_cancel) error {
		n := len(steps)
		sessions, samplers, input := make([]*C.grug_session, n), make([]*C.grug_sampler, n), make([]C.int32_t, n)
		for i, step := range steps {
			if !step.Session.mu.TryLock() {
				return ErrBusy
			}
			defer step.Session.mu.Unlock()
			if sessions[i] = step.Session.handles.session; sessions[i] == nil {
				return ErrClosed
			}
			if step.Sampler != nil {
				if !step.Sampler.mu.TryLock() {
					return ErrBusy
				}
				defer step.Sampler.mu.Unlock()
				if samplers[i] = step.Sampler.handle; samplers[i] == nil {
					return ErrClosed
				}
			}
			if input[i] = -1; step.Input != nil {
				input[i] = C.int32_t(*step.Input)
			}
			// For this call all of them listen to one token.
			if err := check(C.grug_session_set_cancel(sessions[i], token, &e), &e); err != nil {
				return err
			}
			defer C.grug_session_set_cancel(sessions[i], step.Session.handles.cancel, nil)
		}
		return check(C.grug_session_next_batch(unsafe.SliceData(sessions), unsafe.SliceData(samplers),
			unsafe.SliceData(input), C.size_t(n), unsafe.SliceData(bytes), &e), &e)
	})
	if err != nil {
		return nil, err
	}
	picked := make([]Picked, len(steps))
	for i, b := range bytes {
		if b < 0 {
			picked[i].Err = &Error{Status: int(b)}
		} else {
			picked[i].Byte = byte(b)
		}
	}
	return picked, nil
}
