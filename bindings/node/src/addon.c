/* The Node-API side of the package: handles of libgrug as externals, and calls that take long as promises, off the event
 * loop. It converts and nothing else; index.cjs makes classes of it. */
#include <grug.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>

enum kind { MODEL, SESSION, SAMPLER, CANCEL };

/* What an external holds. Everything here happens on the thread of its environment, but for the calls in `execute`. */
typedef struct box {
    enum kind kind;
    void *handle; /* NULL once freed */
    int users;    /* calls in progress */
    int closing;  /* free it when they end */
} box;

static const char *const KIND_NAMES[] = { "a model", "a session", "a sampler", "a cancellation token" };

static void box_free_handle(box *b) {
    void *handle = b->handle;
    b->handle = NULL;
    switch (b->kind) {
    case MODEL: grug_model_free(handle); break;
    case SESSION: grug_session_free(handle); break;
    case SAMPLER: grug_sampler_free(handle); break;
    case CANCEL: grug_cancel_free(handle); break;
    }
}

static void finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    box_free_handle(data);
    free(data);
}

static napi_value throw_text(napi_env env, const char *code, const char *text) {
    napi_throw_error(env, code, text);
    return NULL;
}

/* An Error with `code` (the name of the status) and `status`. */
static napi_value make_error(napi_env env, grug_status status, const char *message) {
    napi_value code, text, error, number;
    napi_create_string_utf8(env, grug_status_name(status), NAPI_AUTO_LENGTH, &code);
    napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
    napi_create_error(env, code, text, &error);
    napi_create_int32(env, status, &number);
    napi_set_named_property(env, error, "status", number);
    return error;
}

static napi_value throw_status(napi_env env, const grug_error *err) {
    napi_throw(env, make_error(env, err->status, err->message));
    return NULL;
}

/* An external of a handle, which it owns. */
static napi_value wrap(napi_env env, enum kind kind, void *handle) {
    napi_value external;
    box *b = malloc(sizeof *b);
    if (b == NULL) return throw_text(env, "GRUG_ENOMEM", "out of memory");
    b->kind = kind;
    b->handle = handle;
    b->users = b->closing = 0;
    if (napi_create_external(env, b, finalize, NULL, &external) != napi_ok) {
        finalize(env, b, NULL);
        return NULL;
    }
    return external;
}

/* The box of an argument; throws and returns NULL where it is something else or closed. */
static box *unwrap(napi_env env, napi_value value, enum kind kind) {
    napi_valuetype type;
    void *data = NULL;
    if (napi_typeof(env, value, &type) != napi_ok || type != napi_external
        || napi_get_value_external(env, value, &data) != napi_ok || ((box *)data)->kind != kind) {
        napi_throw_type_error(env, "GRUG_EINVAL", KIND_NAMES[kind]);
        return NULL;
    }
    if (((box *)data)->handle == NULL || ((box *)data)->closing) {
        throw_text(env, "GRUG_EINVAL", "it is closed");
        return NULL;
    }
    return data;
}

/* As unwrap, but null gives NULL without throwing; *ok says whether it went well. */
static box *unwrap_optional(napi_env env, napi_value value, enum kind kind, int *ok) {
    napi_valuetype type;
    box *b;
    *ok = 1;
    if (napi_typeof(env, value, &type) == napi_ok && (type == napi_null || type == napi_undefined)) return NULL;
    b = unwrap(env, value, kind);
    *ok = b != NULL;
    return b;
}

/* As unwrap, for calls that are made at once: throws where one that is queued or running has the handle. */
static box *unwrap_idle(napi_env env, napi_value value, enum kind kind) {
    box *b = unwrap(env, value, kind);
    if (b != NULL && b->users > 0) {
        napi_throw(env, make_error(env, GRUG_EBUSY, "another call is using this handle"));
        return NULL;
    }
    return b;
}

/* The bytes of a Uint8Array, or throws. */
static int get_bytes(napi_env env, napi_value value, uint8_t **data, size_t *len) {
    bool is = false;
    napi_typedarray_type type;
    void *start = NULL;
    if (napi_is_typedarray(env, value, &is) != napi_ok || !is
        || napi_get_typedarray_info(env, value, &type, len, &start, NULL, NULL) != napi_ok
        || type != napi_uint8_array) {
        napi_throw_type_error(env, "GRUG_EINVAL", "expected a Uint8Array");
        return 0;
    }
    *data = start;
    return 1;
}

#define ARGUMENTS(n)                                                              \
    napi_value argv[n];                                                           \
    size_t argc = (n);                                                            \
    if (napi_get_cb_info(env, info, &argc, argv, NULL, NULL) != napi_ok) return NULL

static double get_number(napi_env env, napi_value value) {
    double number = 0;
    napi_get_value_double(env, value, &number);
    return number;
}

/* A seed or count: a BigInt or a number. */
static uint64_t get_u64(napi_env env, napi_value value) {
    uint64_t number = 0;
    bool lossless;
    if (napi_get_value_bigint_uint64(env, value, &number, &lossless) != napi_ok) {
        double d = get_number(env, value);
        number = d > 0 && d < 9007199254740992.0 ? (uint64_t)d : 0;
    }
    return number;
}

/* ---- calls off the event loop ---------------------------------------------------------------------------- */

enum job { LOAD, FEED, GENERATE, SCORE, LOGITS };

typedef struct task {
    enum job job;
    napi_async_work work;
    napi_deferred deferred;
    box *used[2];       /* session and sampler, or nothing */
    napi_ref keep[2];   /* their externals */
    uint8_t *data;      /* a copy of the input, or the output buffer */
    size_t len, n;
    float *numbers;
    uint8_t *stop_data;
    grug_bytes *stops;
    size_t n_stops;
    char *path;
    grug_model_options options;
    grug_model *model;
    double total;
    grug_status status;
    grug_error err;
} task;

static void task_free(task *t) {
    free(t->data);
    free(t->numbers);
    free(t->stop_data);
    free(t->stops);
    free(t->path);
    free(t);
}

static void execute(napi_env env, void *data) {
    task *t = data;
    grug_session *session = t->used[0] ? t->used[0]->handle : NULL;
    (void)env;
    switch (t->job) {
    case LOAD:
        t->status = t->path ? grug_model_load_file(t->path, &t->options, &t->model, &t->err)
                            : grug_model_load_buffer(t->data, t->len, GRUG_LOAD_COPY, &t->options, &t->model, &t->err);
        break;
    case FEED: t->status = grug_session_feed(session, t->data, t->len, &t->err); break;
    case GENERATE:
        t->status = grug_session_generate(session, t->used[1] ? t->used[1]->handle : NULL, t->stops, t->n_stops,
                                          t->data, t->len, &t->n, &t->err);
        break;
    case SCORE: t->status = grug_session_score(session, t->data, t->len, t->numbers, &t->total, &t->err); break;
    case LOGITS: t->status = grug_session_get_logits(session, t->numbers, &t->err); break;
    }
}

static napi_value new_bytes(napi_env env, const uint8_t *data, size_t len) {
    napi_value buffer, array;
    void *to = NULL;
    napi_create_arraybuffer(env, len, &to, &buffer);
    if (len > 0) memcpy(to, data, len);
    napi_create_typedarray(env, napi_uint8_array, len, buffer, 0, &array);
    return array;
}

static napi_value new_floats(napi_env env, const float *data, size_t n) {
    napi_value buffer, array;
    void *to = NULL;
    napi_create_arraybuffer(env, n * sizeof *data, &to, &buffer);
    if (n > 0) memcpy(to, data, n * sizeof *data);
    napi_create_typedarray(env, napi_float32_array, n, buffer, 0, &array);
    return array;
}

static void set_number(napi_env env, napi_value object, const char *name, double number) {
    napi_value value;
    napi_create_double(env, number, &value);
    napi_set_named_property(env, object, name, value);
}

static void complete(napi_env env, napi_status async_status, void *data) {
    task *t = data;
    napi_value result = NULL;
    int i;
    napi_delete_async_work(env, t->work);
    for (i = 0; i < 2; i++) {
        if (t->used[i] == NULL) continue;
        if (--t->used[i]->users == 0 && t->used[i]->closing) box_free_handle(t->used[i]);
        napi_delete_reference(env, t->keep[i]);
    }
    if (async_status != napi_ok) {
        t->status = GRUG_ECANCELED;
        strcpy(t->err.message, "the environment is shutting down");
    }
    if (t->status < 0) {
        result = make_error(env, t->status, t->err.message);
        if (t->job == GENERATE) napi_set_named_property(env, result, "bytes", new_bytes(env, t->data, t->n));
        napi_reject_deferred(env, t->deferred, result);
        task_free(t);
        return;
    }
    switch (t->job) {
    case LOAD: result = wrap(env, MODEL, t->model); break;
    case FEED: napi_get_undefined(env, &result); break;
    case GENERATE:
        napi_create_object(env, &result);
        napi_set_named_property(env, result, "bytes", new_bytes(env, t->data, t->n));
        set_number(env, result, "reason", t->status);
        break;
    case SCORE:
        napi_create_object(env, &result);
        set_number(env, result, "total", t->total);
        napi_set_named_property(env, result, "nats", new_floats(env, t->numbers, t->len));
        break;
    case LOGITS: result = new_floats(env, t->numbers, 256); break;
    }
    if (result == NULL) napi_get_undefined(env, &result);
    napi_resolve_deferred(env, t->deferred, result);
    task_free(t);
}

static task *new_task(napi_env env, enum job job) {
    task *t = calloc(1, sizeof *t);
    if (t == NULL) throw_text(env, "GRUG_ENOMEM", "out of memory");
    else t->job = job;
    return t;
}

static napi_value start(napi_env env, task *t, napi_value session, napi_value sampler) {
    napi_value promise, name, externals[2];
    int i;
    externals[0] = session;
    externals[1] = sampler;
    napi_create_promise(env, &t->deferred, &promise);
    napi_create_string_utf8(env, "grug", NAPI_AUTO_LENGTH, &name);
    for (i = 0; i < 2; i++) {
        if (t->used[i] == NULL) continue;
        t->used[i]->users++;
        napi_create_reference(env, externals[i], 1, &t->keep[i]);
    }
    napi_create_async_work(env, NULL, name, execute, complete, t, &t->work);
    napi_queue_async_work(env, t->work);
    return promise;
}

/* A copy of a Uint8Array, which its owner may change while the call runs. */
static int copy_input(napi_env env, task *t, napi_value value) {
    uint8_t *data;
    if (!get_bytes(env, value, &data, &t->len)) return 0;
    t->data = malloc(t->len + 1);
    if (t->data == NULL) {
        throw_text(env, "GRUG_ENOMEM", "out of memory");
        return 0;
    }
    if (t->len > 0) memcpy(t->data, data, t->len);
    return 1;
}

/* modelLoad(path or Uint8Array, threads, flags) -> Promise of a model */
static napi_value model_load(napi_env env, napi_callback_info info) {
    napi_valuetype type;
    task *t;
    ARGUMENTS(3);
    if ((t = new_task(env, LOAD)) == NULL) return NULL;
    t->options.size = sizeof t->options;
    t->options.n_threads = (uint32_t)get_number(env, argv[1]);
    t->options.flags = (uint32_t)get_number(env, argv[2]);
    napi_typeof(env, argv[0], &type);
    if (type == napi_string) {
        size_t len = 0;
        napi_get_value_string_utf8(env, argv[0], NULL, 0, &len);
        t->path = malloc(len + 1);
        if (t->path == NULL) {
            task_free(t);
            return throw_text(env, "GRUG_ENOMEM", "out of memory");
        }
        napi_get_value_string_utf8(env, argv[0], t->path, len + 1, &len);
    } else if (!copy_input(env, t, argv[0])) {
        task_free(t);
        return NULL;
    }
    return start(env, t, NULL, NULL);
}

static napi_value session_job(napi_env env, napi_callback_info info, enum job job) {
    task *t;
    box *session;
    ARGUMENTS(2);
    if ((session = unwrap(env, argv[0], SESSION)) == NULL || (t = new_task(env, job)) == NULL) return NULL;
    if (job != LOGITS && !copy_input(env, t, argv[1])) {
        task_free(t);
        return NULL;
    }
    if (job != FEED) {
        t->numbers = calloc(job == LOGITS ? 256 : t->len + 1, sizeof *t->numbers);
        if (t->numbers == NULL) {
            task_free(t);
            return throw_text(env, "GRUG_ENOMEM", "out of memory");
        }
    }
    t->used[0] = session;
    return start(env, t, argv[0], NULL);
}

static napi_value session_feed(napi_env env, napi_callback_info info) { return session_job(env, info, FEED); }
static napi_value session_score(napi_env env, napi_callback_info info) { return session_job(env, info, SCORE); }
static napi_value session_logits(napi_env env, napi_callback_info info) { return session_job(env, info, LOGITS); }

/* sessionGenerate(session, sampler or null, capacity, stops[]) -> Promise of { bytes, reason } */
static napi_value session_generate(napi_env env, napi_callback_info info) {
    task *t;
    box *session, *sampler;
    uint32_t i, n_stops = 0;
    size_t total = 0, len;
    uint8_t *data;
    napi_value stop;
    int ok;
    ARGUMENTS(4);
    if ((session = unwrap(env, argv[0], SESSION)) == NULL) return NULL;
    sampler = unwrap_optional(env, argv[1], SAMPLER, &ok);
    if (!ok || (t = new_task(env, GENERATE)) == NULL) return NULL;
    t->used[0] = session;
    t->used[1] = sampler;
    t->len = (size_t)get_number(env, argv[2]);
    napi_get_array_length(env, argv[3], &n_stops);
    for (i = 0; i < n_stops; i++) {
        napi_get_element(env, argv[3], i, &stop);
        if (!get_bytes(env, stop, &data, &len)) {
            task_free(t);
            return NULL;
        }
        total += len;
    }
    t->n_stops = n_stops;
    t->data = calloc(t->len + 1, 1);
    t->stop_data = malloc(total + 1);
    t->stops = calloc((size_t)n_stops + 1, sizeof *t->stops);
    if (t->data == NULL || t->stop_data == NULL || t->stops == NULL) {
        task_free(t);
        return throw_text(env, "GRUG_ENOMEM", "out of memory");
    }
    for (total = 0, i = 0; i < n_stops; i++, total += len) {
        napi_get_element(env, argv[3], i, &stop);
        if (!get_bytes(env, stop, &data, &len)) {
            task_free(t);
            return NULL;
        }
        if (len > 0) memcpy(t->stop_data + total, data, len);
        t->stops[i].data = t->stop_data + total;
        t->stops[i].len = len;
    }
    return start(env, t, argv[0], argv[1]);
}

/* ---- calls that are quick -------------------------------------------------------------------------------- */

static napi_value version(napi_env env, napi_callback_info info) {
    napi_value text;
    (void)info;
    napi_create_string_utf8(env, grug_version(), NAPI_AUTO_LENGTH, &text);
    return text;
}

/* close(handle): frees it, or has it freed when the calls that use it end. */
static napi_value close_handle(napi_env env, napi_callback_info info) {
    void *data = NULL;
    box *b;
    ARGUMENTS(1);
    if (napi_get_value_external(env, argv[0], &data) != napi_ok) return NULL;
    b = data;
    b->closing = 1;
    if (b->users == 0 && b->handle != NULL) box_free_handle(b);
    return NULL;
}

static napi_value cancel_new(napi_env env, napi_callback_info info) {
    grug_cancel *cancel = grug_cancel_new();
    (void)info;
    if (cancel == NULL) return throw_text(env, "GRUG_ENOMEM", "out of memory");
    return wrap(env, CANCEL, cancel);
}

static napi_value cancel_trigger(napi_env env, napi_callback_info info) {
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], CANCEL)) != NULL) grug_cancel_trigger(b->handle);
    return NULL;
}

static napi_value cancel_reset(napi_env env, napi_callback_info info) {
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], CANCEL)) != NULL) grug_cancel_reset(b->handle);
    return NULL;
}

static napi_value model_info(napi_env env, napi_callback_info info) {
    grug_model_info m = { .size = sizeof m };
    grug_error err;
    napi_value object, fingerprint;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], MODEL)) == NULL) return NULL;
    if (grug_model_get_info(b->handle, &m, &err) < 0) return throw_status(env, &err);
    napi_create_object(env, &object);
    napi_create_bigint_uint64(env, m.fingerprint, &fingerprint);
    napi_set_named_property(env, object, "fingerprint", fingerprint);
    set_number(env, object, "params", (double)m.n_params);
    set_number(env, object, "weightBytes", (double)m.weight_bytes);
    set_number(env, object, "contextBytes", (double)m.context_bytes);
    set_number(env, object, "stateBytes", (double)m.state_bytes);
    set_number(env, object, "rewindBytes", (double)m.rewind_bytes);
    set_number(env, object, "embeddingDim", m.embedding_dim);
    set_number(env, object, "endByte", m.end_byte);
    return object;
}

static napi_value model_metadata(napi_env env, napi_callback_info info) {
    napi_value object, value;
    box *b;
    size_t i;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], MODEL)) == NULL) return NULL;
    napi_create_object(env, &object);
    for (i = 0;; i++) {
        size_t key_len = 0, len = 0;
        char *key, *text;
        if (grug_model_get_metadata_key(b->handle, i, NULL, &key_len, NULL) == GRUG_ENOTFOUND) return object;
        key = calloc(key_len + 1, 1);
        if (key == NULL) return throw_text(env, "GRUG_ENOMEM", "out of memory");
        grug_model_get_metadata_key(b->handle, i, key, &key_len, NULL);
        grug_model_get_metadata(b->handle, key, NULL, &len, NULL);
        text = calloc(len + 1, 1);
        if (text != NULL) {
            grug_model_get_metadata(b->handle, key, text, &len, NULL);
            napi_create_string_utf8(env, text, len, &value);
            napi_set_named_property(env, object, key, value);
            free(text);
        }
        free(key);
    }
}

/* sessionNew(model, maxContext, overflow, cancel) */
static napi_value session_new(napi_env env, napi_callback_info info) {
    grug_session_options options = { .size = sizeof options };
    grug_session *session = NULL;
    grug_error err;
    box *model, *cancel;
    ARGUMENTS(4);
    if ((model = unwrap(env, argv[0], MODEL)) == NULL || (cancel = unwrap(env, argv[3], CANCEL)) == NULL) return NULL;
    options.max_context = get_u64(env, argv[1]);
    options.overflow = (uint32_t)get_number(env, argv[2]);
    options.cancel = cancel->handle;
    if (grug_session_new(model->handle, &options, &session, &err) < 0) return throw_status(env, &err);
    return wrap(env, SESSION, session);
}

static napi_value session_reset(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    return grug_session_reset(b->handle, &err) < 0 ? throw_status(env, &err) : NULL;
}

static napi_value session_position(napi_env env, napi_callback_info info) {
    napi_value position;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], SESSION)) == NULL) return NULL;
    napi_create_double(env, (double)grug_session_position(b->handle), &position);
    return position;
}

static napi_value session_rewind(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    return grug_session_rewind(b->handle, get_u64(env, argv[1]), &err) < 0 ? throw_status(env, &err) : NULL;
}

static napi_value session_save(napi_env env, napi_callback_info info) {
    grug_error err;
    napi_value bytes;
    uint8_t *state;
    size_t len = 0;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    if (grug_session_save(b->handle, NULL, &len, &err) != GRUG_ESPACE) return throw_status(env, &err);
    if ((state = malloc(len)) == NULL) return throw_text(env, "GRUG_ENOMEM", "out of memory");
    bytes = grug_session_save(b->handle, state, &len, &err) < 0 ? throw_status(env, &err)
                                                                 : new_bytes(env, state, len);
    free(state);
    return bytes;
}

static napi_value session_restore(napi_env env, napi_callback_info info) {
    grug_error err;
    uint8_t *data;
    size_t len;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL || !get_bytes(env, argv[1], &data, &len)) return NULL;
    return grug_session_restore(b->handle, data, len, &err) < 0 ? throw_status(env, &err) : NULL;
}

/* samplerNew(temperature, topK, topP, minP, seed) */
static napi_value sampler_new(napi_env env, napi_callback_info info) {
    grug_sampler_options options = { .size = sizeof options };
    grug_sampler *sampler = NULL;
    grug_error err;
    ARGUMENTS(5);
    options.temperature = (float)get_number(env, argv[0]);
    options.top_k = (uint32_t)get_number(env, argv[1]);
    options.top_p = (float)get_number(env, argv[2]);
    options.min_p = (float)get_number(env, argv[3]);
    options.seed = get_u64(env, argv[4]);
    if (grug_sampler_new(&options, &sampler, &err) < 0) return throw_status(env, &err);
    return wrap(env, SAMPLER, sampler);
}

static napi_value sampler_reset(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    return grug_sampler_reset(b->handle, get_u64(env, argv[1]), &err) < 0 ? throw_status(env, &err) : NULL;
}

/* samplerPick(sampler, Float32Array of 256) */
static napi_value sampler_pick(napi_env env, napi_callback_info info) {
    grug_error err;
    napi_typedarray_type type;
    napi_value byte;
    bool is = false;
    size_t len = 0;
    void *logits = NULL;
    int32_t picked;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    if (napi_is_typedarray(env, argv[1], &is) != napi_ok || !is
        || napi_get_typedarray_info(env, argv[1], &type, &len, &logits, NULL, NULL) != napi_ok
        || type != napi_float32_array || len != 256) {
        napi_throw_type_error(env, "GRUG_EINVAL", "expected a Float32Array of 256 logits");
        return NULL;
    }
    picked = grug_sampler_pick(b->handle, logits, &err);
    if (picked < 0) return throw_status(env, &err);
    napi_create_int32(env, picked, &byte);
    return byte;
}

static napi_value init(napi_env env, napi_value exports) {
    static const struct {
        const char *name;
        napi_callback call;
    } FUNCTIONS[] = {
        { "version", version }, { "close", close_handle },
        { "cancelNew", cancel_new }, { "cancelTrigger", cancel_trigger }, { "cancelReset", cancel_reset },
        { "modelLoad", model_load }, { "modelInfo", model_info }, { "modelMetadata", model_metadata },
        { "sessionNew", session_new }, { "sessionReset", session_reset }, { "sessionPosition", session_position },
        { "sessionFeed", session_feed }, { "sessionGenerate", session_generate }, { "sessionScore", session_score },
        { "sessionLogits", session_logits }, { "sessionRewind", session_rewind }, { "sessionSave", session_save },
        { "sessionRestore", session_restore }, { "samplerNew", sampler_new }, { "samplerReset", sampler_reset },
        { "samplerPick", sampler_pick },
    };
    size_t i;
    for (i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        napi_value function;
        napi_create_function(env, FUNCTIONS[i].name, NAPI_AUTO_LENGTH, FUNCTIONS[i].call, NULL, &function);
        napi_set_named_property(env, exports, FUNCTIONS[i].name, function);
    }
    return exports;
}

NAPI_MODULE(grug, init)
