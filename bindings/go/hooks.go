package grug

/*
#include <grug.h>

extern void grugGoLog(uintptr_t hooks, uint32_t level, char *text, size_t len);
extern int32_t grugGoProgress(uintptr_t hooks, float fraction);

static void log_line(void *user, uint32_t level, const char *text, size_t len) {
	grugGoLog((uintptr_t)user, level, (char *)text, len);
}

static int32_t progress(void *user, float fraction) { return grugGoProgress((uintptr_t)user, fraction); }

static void set_hooks(grug_model_options *options, uintptr_t hooks, int with_log, int with_progress) {
	options->user = (void *)hooks;
	options->log = with_log ? log_line : NULL;
	options->progress = with_progress ? progress : NULL;
}
*/
import "C"

import (
	"log/slog"
	"runtime/cgo"
	"sync/atomic"
)

// hooks are the functions that the library calls. The model and each of its sessions hold them; the last lets go.
type hooks struct {
	handle   cgo.Handle
	holders  atomic.Int32
	log      *slog.Logger
	progress func(float64) error
	stopped  error
}

// newHooks is nil where there is nothing to call.
func newHooks(options *ModelOptions) *hooks {
	if options.Log == nil && options.Progress == nil {
		return nil
	}
	h := &hooks{log: options.Log, progress: options.Progress}
	h.handle = cgo.NewHandle(h)
	h.holders.Store(1)
	return h
}

func (h *hooks) set(options *C.grug_model_options) {
	if h != nil {
		C.set_hooks(options, C.uintptr_t(h.handle), flag(h.log != nil), flag(h.progress != nil))
	}
}

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// retain is one more holder.
func (h *hooks) retain() *hooks {
	if h != nil {
		h.holders.Add(1)
	}
	return h
}

func (h *hooks) release() {
	if h != nil && h.holders.Add(-1) == 0 {
		h.handle.Delete()
	}
}

// stoppedBy is what Progress returned.
func (h *hooks) stoppedBy() error {
	if h == nil {
		return nil
	}
	return h.stopped
}
