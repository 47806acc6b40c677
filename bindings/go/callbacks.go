package grug

// What C calls. A file that exports functions to C must not define any in its preamble, so these are by themselves.

/*
#include <stddef.h>
#include <stdint.h>
*/
import "C"

import (
	"context"
	"log/slog"
	"runtime/cgo"
	"unsafe"
)

// The levels of grug.h, from GRUG_LOG_ERROR = 1 on.
var logLevels = [...]slog.Level{slog.LevelDebug, slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug}

//export grugGoLog
func grugGoLog(user C.uintptr_t, level C.uint32_t, text *C.char, length C.size_t) {
	h := cgo.Handle(user).Value().(*hooks)
	line := string(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(length)))
	h.log.Log(context.Background(), logLevels[min(int(level), len(logLevels)-1)], line)
}

//export grugGoProgress
func grugGoProgress(user C.uintptr_t, fraction C.float) C.int32_t {
	h := cgo.Handle(user).Value().(*hooks)
	if h.stopped = h.progress(float64(fraction)); h.stopped != nil {
		return 1
	}
	return 0
}
