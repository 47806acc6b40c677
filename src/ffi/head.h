/* grug.h - C API of libgrug, a byte-level language model. Made from src/ffi by build.rs; do not edit.
 *
 * OWNERSHIP  X_new, X_load and X_fork return an owned handle; free it once with X_free (NULL is a no-op). Handles keep what
 *            they use alive: a session may outlive its grug_model handle. Input pointers are borrowed for the call only
 *            (sole exception: GRUG_LOAD_BORROW). Output goes to caller memory, which must not overlap any input; the
 *            library never asks you to free() something.
 * THREADS    grug_model is immutable: use it from any threads at once. grug_session and grug_sampler: any thread, one
 *            at a time; a concurrent call returns GRUG_EBUSY, not undefined behaviour. grug_cancel: any thread, any
 *            time. Freeing a handle while another thread is in a call with it is the one thing not caught.
 *            n_threads = 1 creates no threads.
 * ERRORS     A status is >= 0 on success, negative on failure. `err` (may be NULL) is caller memory, written on failure
 *            only; nothing is stored in globals or thread-locals, so it works across goroutines, libuv and GCD. On
 *            failure outputs are untouched unless documented. No call aborts, exits, prints, raises signals or unwinds;
 *            a panic inside the library becomes GRUG_EPANIC and poisons the handles of that call only: later calls with
 *            them return GRUG_EPANIC as well, and they can be freed.
 * BYTES      Text is (pointer, length) bytes; NULL is fine when the length is 0. Paths and keys are NUL-terminated
 *            UTF-8; on Unix a path may be any bytes.
 * OPTIONS    Set .size = sizeof(struct), zero the rest: zero is always the default, and NULL for the whole struct is all
 *            defaults. Structs only grow at the end; fields that the library does not know must be zero, else
 *            GRUG_EVERSION. Out structs: set .size too, at most that much is written. grug_error and grug_bytes have no
 *            .size: they never change.
 * DETERMINISM  Same build, machine, options and sequence of calls => same bytes, for any n_threads. */
#ifndef GRUG_H
#define GRUG_H
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(GRUG_STATIC)
#define GRUG_API __declspec(dllimport)
#else
#define GRUG_API
#endif
#if defined(__GNUC__)
#define GRUG_MUST_USE __attribute__((warn_unused_result))
#else
#define GRUG_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif
