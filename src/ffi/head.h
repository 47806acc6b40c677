/* grug.h - C API of libgrug, a byte-level language model. Made from src/ffi by build.rs; do not edit.
 *
 * OWNERSHIP  X_new, X_load and X_fork return an owned handle; free it once with X_free (NULL is a no-op). Handles keep what
 *            they use alive: a session may outlive its grug_model handle, a sampler its grug_grammar. Input pointers are
 *            borrowed for the call only (sole exceptions: GRUG_LOAD_BORROW, and the log function with its user
 *            pointer). Output goes to caller memory, which must not overlap any input; the library never asks you to
 *            free() something.
 * THREADS    grug_model and grug_grammar are immutable: use them from any threads at once. grug_session and
 *            grug_sampler: any thread, one at a time; a concurrent call returns GRUG_EBUSY, not undefined behaviour.
 *            grug_cancel: any thread, any time. Freeing a handle while another thread is in a call with it is the one
 *            thing not caught. n_threads = 1 creates no threads; the worker threads of a model, named grug-1 and so on,
 *            are joined by the free of its last handle, sessions included. After fork() a child may use what was loaded
 *            with n_threads = 1, and free or load anything; computing with the threads of its parent is GRUG_EFORK.
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
 * DETERMINISM  Same build, machine, options and sequence of calls => same bytes, for any n_threads.
 *            GRUG_MODEL_PORTABLE makes how bytes are fed and batched, instruction set, machine and system irrelevant
 *            too: logits are then the same bit by bit. */
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
