/* The Node-API side of the package: handles of libgrug as externals, and calls that take long as promises, off the event
 * loop. It converts and nothing else; index.cjs makes classes of it.
 *
 *   values.c   errors, numbers and typed arrays between JavaScript and C
 *   boxes.c    handles as externals, and the log
 *   tasks.c    calls that take long
 *   calls.c    calls that are quick
 *   addon.c    the list of functions */
#ifndef ADDON_H
#define ADDON_H
#include <grug.h>
#include <node_api.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENTS(n)                                                              \
    napi_value argv[n];                                                           \
    size_t argc = (n);                                                            \
    if (napi_get_cb_info(env, info, &argc, argv, NULL, NULL) != napi_ok) return NULL

/* ---- values.c -------------------------------------------------------------------------------------------- */

/* An Error with `code` (the name of the status) and `status`. */
napi_value make_error(napi_env env, grug_status status, const char *message);
napi_value throw_text(napi_env env, grug_status status, const char *text);
napi_value throw_memory(napi_env env);
napi_value throw_status(napi_env env, const grug_error *err);

double get_number(napi_env env, napi_value value);
/* A seed or count: a BigInt or a number. */
uint64_t get_u64(napi_env env, napi_value value);
int is_nothing(napi_env env, napi_value value);
/* The bytes of a Uint8Array, or throws and returns 0. */
int get_bytes(napi_env env, napi_value value, uint8_t **data, size_t *len);
/* The numbers of a Float32Array of this length, or throws and returns NULL. */
float *get_floats(napi_env env, napi_value value, size_t len);

napi_value new_bytes(napi_env env, const uint8_t *data, size_t len);
napi_value new_floats(napi_env env, const float *data, size_t n);
void set_number(napi_env env, napi_value object, const char *name, double number);

/* ---- boxes.c --------------------------------------------------------------------------------------------- */

enum kind { MODEL, SESSION, SAMPLER, CANCEL, GRAMMAR, LOG };

typedef struct log log;

/* What an external holds. Everything here happens on the thread of its environment, but for the calls in `execute`. */
typedef struct box {
    enum kind kind;
    void *handle; /* NULL once freed */
    log *log;     /* of a model or a session: what its library writes to; held */
    int users;    /* calls in progress */
    int closing;  /* free it when they end */
} box;

/* An external of a handle, which it owns; holds the log `to`, which may be NULL. */
napi_value wrap(napi_env env, enum kind kind, void *handle, log *to);
void box_free_handle(box *b);
/* The box of an argument; throws and returns NULL where it is something else or closed. */
box *unwrap(napi_env env, napi_value value, enum kind kind);
/* As unwrap, but null gives NULL without throwing; *ok says whether it went well. */
box *unwrap_optional(napi_env env, napi_value value, enum kind kind, int *ok);
/* As unwrap, for calls that are made at once: throws where one that is queued or running has the handle. */
box *unwrap_idle(napi_env env, napi_value value, enum kind kind);

/* A grug_log_fn and a grug_progress_fn, whose user is a log; called from any thread. */
void log_write(void *user, uint32_t level, const char *text, size_t len);
int32_t log_progress(void *user, float fraction);

napi_value close_handle(napi_env env, napi_callback_info info);
napi_value log_new(napi_env env, napi_callback_info info);
napi_value log_take(napi_env env, napi_callback_info info);
napi_value log_get_progress(napi_env env, napi_callback_info info);

/* ---- tasks.c --------------------------------------------------------------------------------------------- */

napi_value model_load(napi_env env, napi_callback_info info);
napi_value model_compress(napi_env env, napi_callback_info info);
napi_value model_decompress(napi_env env, napi_callback_info info);
napi_value session_feed(napi_env env, napi_callback_info info);
napi_value session_score(napi_env env, napi_callback_info info);
napi_value session_logits(napi_env env, napi_callback_info info);
napi_value session_embedding(napi_env env, napi_callback_info info);
napi_value session_generate(napi_env env, napi_callback_info info);
napi_value session_next_batch(napi_env env, napi_callback_info info);

/* ---- calls.c --------------------------------------------------------------------------------------------- */

napi_value version(napi_env env, napi_callback_info info);
napi_value devices(napi_env env, napi_callback_info info);
napi_value cancel_new(napi_env env, napi_callback_info info);
napi_value cancel_trigger(napi_env env, napi_callback_info info);
napi_value cancel_reset(napi_env env, napi_callback_info info);
napi_value model_info(napi_env env, napi_callback_info info);
napi_value model_metadata(napi_env env, napi_callback_info info);
napi_value session_new(napi_env env, napi_callback_info info);
napi_value session_fork(napi_env env, napi_callback_info info);
napi_value session_reset(napi_env env, napi_callback_info info);
napi_value session_position(napi_env env, napi_callback_info info);
napi_value session_rewind(napi_env env, napi_callback_info info);
napi_value session_save(napi_env env, napi_callback_info info);
napi_value session_restore(napi_env env, napi_callback_info info);
napi_value grammar_new(napi_env env, napi_callback_info info);
napi_value sampler_new(napi_env env, napi_callback_info info);
napi_value sampler_fork(napi_env env, napi_callback_info info);
napi_value sampler_reset(napi_env env, napi_callback_info info);
napi_value sampler_pick(napi_env env, napi_callback_info info);
napi_value sampler_accept(napi_env env, napi_callback_info info);
napi_value sampler_allowed(napi_env env, napi_callback_info info);

#endif
