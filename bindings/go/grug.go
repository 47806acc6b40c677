// Package grug runs byte-level language models with libgrug.
//
//	model, err := grug.Load(ctx, "model.safetensors", nil)
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
	"context"
	"errors"
	"fmt"
	"strings"
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
	ErrNoMemory    = &Error{Status: C.GRUG_ENOMEM}
	ErrIO          = &Error{Status: C.GRUG_EIO}
	ErrFormat      = &Error{Status: C.GRUG_EFORMAT}
	ErrVersion     = &Error{Status: C.GRUG_EVERSION}
	ErrDevice      = &Error{Status: C.GRUG_EDEVICE}
	ErrCanceled    = &Error{Status: C.GRUG_ECANCELED}
	ErrBusy        = &Error{Status: C.GRUG_EBUSY}
	ErrFull        = &Error{Status: C.GRUG_EFULL}
	ErrRewind      = &Error{Status: C.GRUG_EREWIND}
	ErrSpace       = &Error{Status: C.GRUG_ESPACE}
	ErrMismatch    = &Error{Status: C.GRUG_EMISMATCH}
	ErrDeadEnd     = &Error{Status: C.GRUG_EDEADEND}
	ErrNotFound    = &Error{Status: C.GRUG_ENOTFOUND}
	ErrUnsupported = &Error{Status: C.GRUG_EUNSUPPORTED}
	ErrFork        = &Error{Status: C.GRUG_EFORK}
	ErrPanic       = &Error{Status: C.GRUG_EPANIC}
	// ErrClosed is the use of a handle after Close.
	ErrClosed = errors.New("grug: closed")
)

// A library that was installed anew is found at run time, and before 1.0 anything may have changed in it.
func init() {
	if found := C.grug_abi_version(); found>>16 != C.GRUG_ABI_VERSION>>16 || found < C.GRUG_ABI_VERSION ||
		(found>>16 == 0 && found != C.GRUG_ABI_VERSION) {
		panic(fmt.Sprintf("grug: libgrug has ABI %d.%d; this program was built for %d.%d: build it anew with go build -a",
			found>>16, found&0xffff, C.GRUG_ABI_VERSION>>16, C.GRUG_ABI_VERSION&0xffff))
	}
}

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

// data is the address of the first byte, or nil: an empty slice may point into memory that is not pinned.
func data(p []byte) *C.uint8_t {
	if len(p) == 0 {
		return nil
	}
	return (*C.uint8_t)(unsafe.SliceData(p))
}

// cString is a copy for C, which the caller frees; C would end it at a NUL.
func cString(name, text string) (*C.char, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, invalid("%s has a NUL", name)
	}
	return C.CString(text), nil
}

func invalid(format string, arguments ...any) error {
	return &Error{Status: C.GRUG_EINVAL, Message: fmt.Sprintf(format, arguments...)}
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

// cancelable runs a call that a token stops, and triggers that when ctx is done.
func cancelable(ctx context.Context, token *C.grug_cancel, call func() error) error {
	if ctx.Err() != nil {
		return doneError(ctx)
	}
	triggered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		C.grug_cancel_trigger(token)
		close(triggered)
	})
	err := call()
	if !stop() {
		<-triggered
		C.grug_cancel_reset(token)
		if e, ok := err.(*Error); ok && e.Is(ErrCanceled) {
			return fmt.Errorf("%w: %w", doneError(ctx), err)
		}
	}
	return err
}

// doneError is context.Canceled or context.DeadlineExceeded, and the cause of a context that has another.
func doneError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// withToken runs a call with a token of its own, which ctx triggers.
func withToken(ctx context.Context, call func(*C.grug_cancel) error) error {
	token := C.grug_cancel_new()
	if token == nil {
		return &Error{Status: C.GRUG_ENOMEM}
	}
	defer C.grug_cancel_free(token)
	return cancelable(ctx, token, func() error { return call(token) })
}
