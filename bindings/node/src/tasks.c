/* Calls that take long, as promises: the call runs on a thread of Node's pool. */
#include "addon.h"

enum job { LOAD, COMPRESS, DECOMPRESS, FEED, GENERATE, SCORE, LOGITS, EMBEDDING, BATCH };

typedef struct task {
    enum job job;
    napi_async_work work;
    napi_deferred deferred;
    box **used; /* what the call uses: the first is its model or session */
    napi_ref *keep; /* their externals */
    size_t n_used, room;
    grug_sampler *sampler;
    uint8_t *data; /* a copy of the input, or the output buffer */
    size_t len, n;
    uint8_t *out; /* of compression */
    float *numbers;
    uint8_t *stop_data;
    grug_bytes *stops;
    size_t n_stops;
    grug_session **sessions;
    grug_sampler **samplers;
    int32_t *input, *bytes;
    char *path, *device;
    grug_model_options load;
    grug_session_options options;
    grug_model *model;
    log *log;
    double total;
    grug_status status;
    grug_error err;
} task;

static task *new_task(napi_env env, enum job job, size_t room) {
    task *t = calloc(1, sizeof *t);
    if (t != NULL) {
        t->job = job;
        t->room = room;
        t->used = calloc(room + 1, sizeof *t->used);
        t->keep = calloc(room + 1, sizeof *t->keep);
        t->load.size = sizeof t->load;
        t->options.size = sizeof t->options;
        if (t->used != NULL && t->keep != NULL) return t;
        free(t->used);
        free(t->keep);
        free(t);
    }
    throw_memory(env);
    return NULL;
}

/* The call uses this handle, which therefore stays as long as it runs. */
static void use(napi_env env, task *t, box *b, napi_value external) {
    if (b == NULL) return;
    b->users++;
    napi_create_reference(env, external, 1, &t->keep[t->n_used]);
    t->used[t->n_used++] = b;
}

static void task_free(napi_env env, task *t) {
    size_t i;
    for (i = 0; i < t->n_used; i++) {
        if (--t->used[i]->users == 0 && t->used[i]->closing && t->used[i]->handle != NULL) box_free_handle(t->used[i]);
        napi_delete_reference(env, t->keep[i]);
    }
    free(t->used);
    free(t->keep);
    free(t->data);
    free(t->out);
    free(t->numbers);
    free(t->stop_data);
    free(t->stops);
    free(t->sessions);
    free(t->samplers);
    free(t->input);
    free(t->bytes);
    free(t->path);
    free(t->device);
    free(t);
}

static napi_value fail(napi_env env, task *t) {
    task_free(env, t);
    return NULL;
}

static int no_memory(napi_env env, const void *memory) {
    if (memory == NULL) throw_memory(env);
    return memory == NULL;
}

/* ---- on a thread of the pool ----------------------------------------------------------------------------- */

static void decompress(task *t, const grug_model *model) {
    size_t most = (size_t)t->total;
    t->n = 0;
    t->status = grug_decompress(model, &t->options, t->data, t->len, NULL, &t->n, &t->err);
    if (t->status != GRUG_ESPACE || t->n > most) return;
    if ((t->out = malloc(t->n)) == NULL) {
        t->status = GRUG_ENOMEM;
        strcpy(t->err.message, "out of memory");
        return;
    }
    t->status = grug_decompress(model, &t->options, t->data, t->len, t->out, &t->n, &t->err);
}

static void execute(napi_env env, void *data) {
    task *t = data;
    void *handle = t->n_used > 0 ? t->used[0]->handle : NULL;
    (void)env;
    switch (t->job) {
    case LOAD:
        t->status = t->path ? grug_model_load_file(t->path, &t->load, &t->model, &t->err)
                            : grug_model_load_buffer(t->data, t->len, GRUG_LOAD_COPY, &t->load, &t->model, &t->err);
        break;
    case COMPRESS:
        t->n = GRUG_COMPRESS_BOUND(t->len);
        t->status = grug_compress(handle, &t->options, t->data, t->len, t->out, &t->n, &t->err);
        break;
    case DECOMPRESS: decompress(t, handle); break;
    case FEED: t->status = grug_session_feed(handle, t->data, t->len, &t->err); break;
    case GENERATE:
        t->status = grug_session_generate(handle, t->sampler, t->stops, t->n_stops, t->data, t->len, &t->n, &t->err);
        break;
    case SCORE: t->status = grug_session_score(handle, t->data, t->len, t->numbers, &t->total, &t->err); break;
    case LOGITS: t->status = grug_session_get_logits(handle, t->numbers, &t->err); break;
    case EMBEDDING: t->status = grug_session_get_embedding(handle, t->numbers, t->len, &t->err); break;
    case BATCH:
        t->status = grug_session_next_batch(t->sessions, t->samplers, t->input, t->n, t->bytes, &t->err);
        break;
    }
}

/* ---- on the event loop ----------------------------------------------------------------------------------- */

static napi_value batch_result(napi_env env, const task *t) {
    napi_value list, value;
    size_t i;
    napi_create_array_with_length(env, t->n, &list);
    for (i = 0; i < t->n; i++) {
        if (t->bytes[i] < 0) value = make_error(env, t->bytes[i], grug_status_name(t->bytes[i]));
        else napi_create_int32(env, t->bytes[i], &value);
        napi_set_element(env, list, (uint32_t)i, value);
    }
    return list;
}

static napi_value result_of(napi_env env, const task *t) {
    napi_value result = NULL;
    switch (t->job) {
    case LOAD: return wrap(env, MODEL, t->model, t->log);
    case COMPRESS:
    case DECOMPRESS: return new_bytes(env, t->out, t->n);
    case FEED: break;
    case GENERATE:
        napi_create_object(env, &result);
        napi_set_named_property(env, result, "bytes", new_bytes(env, t->data, t->n));
        set_number(env, result, "reason", t->status);
        return result;
    case SCORE:
        napi_create_object(env, &result);
        set_number(env, result, "total", t->total);
        napi_set_named_property(env, result, "nats", new_floats(env, t->numbers, t->len));
        return result;
    case LOGITS: return new_floats(env, t->numbers, 256);
    case EMBEDDING: return new_floats(env, t->numbers, t->len);
    case BATCH: return batch_result(env, t);
    }
    napi_get_undefined(env, &result);
    return result;
}

static void complete(napi_env env, napi_status async_status, void *data) {
    task *t = data;
    napi_value result;
    napi_delete_async_work(env, t->work);
    if (async_status != napi_ok) {
        t->status = GRUG_ECANCELED;
        strcpy(t->err.message, "the environment is shutting down");
    }
    if (t->status < 0) {
        result = make_error(env, t->status, t->err.message);
        if (t->job == GENERATE) napi_set_named_property(env, result, "bytes", new_bytes(env, t->data, t->n));
        napi_reject_deferred(env, t->deferred, result);
    } else if ((result = result_of(env, t)) != NULL) {
        napi_resolve_deferred(env, t->deferred, result);
    } else {
        bool pending = false;
        napi_is_exception_pending(env, &pending);
        if (pending) napi_get_and_clear_last_exception(env, &result);
        else result = make_error(env, GRUG_ENOMEM, "out of memory");
        napi_reject_deferred(env, t->deferred, result);
    }
    task_free(env, t);
}

static napi_value start(napi_env env, task *t) {
    napi_value promise, name;
    napi_create_promise(env, &t->deferred, &promise);
    napi_create_string_utf8(env, "grug", NAPI_AUTO_LENGTH, &name);
    napi_create_async_work(env, NULL, name, execute, complete, t, &t->work);
    napi_queue_async_work(env, t->work);
    return promise;
}

/* A copy of a Uint8Array, which its owner may change while the call runs. */
static int copy_input(napi_env env, task *t, napi_value value) {
    uint8_t *data;
    if (!get_bytes(env, value, &data, &t->len)) return 0;
    t->data = malloc(t->len + 1);
    if (no_memory(env, t->data)) return 0;
    if (t->len > 0) memcpy(t->data, data, t->len);
    return 1;
}

/* A copy of a string, which must have no NUL, or throws and returns NULL. */
static char *copy_text(napi_env env, napi_value value) {
    size_t len = 0;
    char *text;
    if (napi_get_value_string_utf8(env, value, NULL, 0, &len) != napi_ok) {
        napi_throw_type_error(env, "GRUG_EINVAL", "expected a string");
        return NULL;
    }
    text = malloc(len + 1);
    if (no_memory(env, text)) return NULL;
    napi_get_value_string_utf8(env, value, text, len + 1, &len);
    if (strlen(text) == len) return text;
    throw_text(env, GRUG_EINVAL, "a path or a name has no NUL");
    free(text);
    return NULL;
}

/* modelLoad(path or Uint8Array, threads, flags, cancel, log, whether lines are wanted, device or null) -> Promise */
napi_value model_load(napi_env env, napi_callback_info info) {
    napi_valuetype type;
    task *t;
    box *cancel, *to;
    bool lines = false;
    ARGUMENTS(7);
    if ((cancel = unwrap(env, argv[3], CANCEL)) == NULL || (to = unwrap(env, argv[4], LOG)) == NULL
        || (t = new_task(env, LOAD, 2)) == NULL)
        return NULL;
    use(env, t, cancel, argv[3]);
    use(env, t, to, argv[4]);
    napi_get_value_bool(env, argv[5], &lines);
    t->load.n_threads = (uint32_t)get_number(env, argv[1]);
    t->load.flags = (uint32_t)get_number(env, argv[2]);
    t->load.cancel = cancel->handle;
    t->load.log = lines ? log_write : NULL;
    t->load.progress = log_progress;
    t->load.user = t->log = to->handle;
    if (!is_nothing(env, argv[6]) && (t->load.device = t->device = copy_text(env, argv[6])) == NULL) return fail(env, t);
    napi_typeof(env, argv[0], &type);
    if (type == napi_string) {
        if ((t->path = copy_text(env, argv[0])) == NULL) return fail(env, t);
    } else if (!copy_input(env, t, argv[0])) {
        return fail(env, t);
    }
    return start(env, t);
}

static napi_value code(napi_env env, napi_callback_info info, enum job job) {
    task *t;
    box *model, *cancel;
    ARGUMENTS(4);
    if ((model = unwrap(env, argv[0], MODEL)) == NULL || (cancel = unwrap(env, argv[3], CANCEL)) == NULL
        || (t = new_task(env, job, 2)) == NULL)
        return NULL;
    use(env, t, model, argv[0]);
    use(env, t, cancel, argv[3]);
    t->options.cancel = cancel->handle;
    if (job == COMPRESS) t->options.max_context = get_u64(env, argv[2]);
    else t->total = get_number(env, argv[2]);
    if (!copy_input(env, t, argv[1])) return fail(env, t);
    if (job == COMPRESS && no_memory(env, t->out = malloc(GRUG_COMPRESS_BOUND(t->len)))) return fail(env, t);
    return start(env, t);
}

/* modelCompress(model, bytes, maxContext, cancel) and modelDecompress(model, archive, maxBytes, cancel) -> bytes */
napi_value model_compress(napi_env env, napi_callback_info info) { return code(env, info, COMPRESS); }
napi_value model_decompress(napi_env env, napi_callback_info info) { return code(env, info, DECOMPRESS); }

static napi_value session_job(napi_env env, napi_callback_info info, enum job job) {
    task *t;
    box *session;
    size_t n;
    ARGUMENTS(2);
    if ((session = unwrap(env, argv[0], SESSION)) == NULL || (t = new_task(env, job, 1)) == NULL) return NULL;
    use(env, t, session, argv[0]);
    if ((job == FEED || job == SCORE) && !copy_input(env, t, argv[1])) return fail(env, t);
    if (job == EMBEDDING) t->len = (size_t)get_number(env, argv[1]);
    n = job == LOGITS ? 256 : t->len;
    if (job != FEED && no_memory(env, t->numbers = calloc(n + 1, sizeof *t->numbers))) return fail(env, t);
    return start(env, t);
}

/* (session, bytes); logits (session); embedding (session, embeddingDim) */
napi_value session_feed(napi_env env, napi_callback_info info) { return session_job(env, info, FEED); }
napi_value session_score(napi_env env, napi_callback_info info) { return session_job(env, info, SCORE); }
napi_value session_logits(napi_env env, napi_callback_info info) { return session_job(env, info, LOGITS); }
napi_value session_embedding(napi_env env, napi_callback_info info) { return session_job(env, info, EMBEDDING); }

/* Copies stop sequences, an array of Uint8Arrays. */
static int copy_stops(napi_env env, task *t, napi_value list) {
    uint32_t i, n = 0;
    size_t total = 0, len;
    uint8_t *data;
    napi_value stop;
    napi_get_array_length(env, list, &n);
    for (i = 0; i < n; i++, total += len) {
        napi_get_element(env, list, i, &stop);
        if (!get_bytes(env, stop, &data, &len)) return 0;
    }
    t->n_stops = n;
    if (no_memory(env, t->stop_data = malloc(total + 1))) return 0;
    if (no_memory(env, t->stops = calloc((size_t)n + 1, sizeof *t->stops))) return 0;
    for (total = 0, i = 0; i < n; i++, total += len) {
        napi_get_element(env, list, i, &stop);
        if (!get_bytes(env, stop, &data, &len)) return 0;
        if (len > 0) memcpy(t->stop_data + total, data, len);
        t->stops[i].data = t->stop_data + total;
        t->stops[i].len = len;
    }
    return 1;
}

/* sessionGenerate(session, sampler or null, capacity, stops[]) -> Promise of { bytes, reason } */
napi_value session_generate(napi_env env, napi_callback_info info) {
    task *t;
    box *session, *sampler;
    int ok;
    ARGUMENTS(4);
    if ((session = unwrap(env, argv[0], SESSION)) == NULL) return NULL;
    sampler = unwrap_optional(env, argv[1], SAMPLER, &ok);
    if (!ok || (t = new_task(env, GENERATE, 2)) == NULL) return NULL;
    use(env, t, session, argv[0]);
    use(env, t, sampler, argv[1]);
    t->sampler = sampler == NULL ? NULL : sampler->handle;
    t->len = (size_t)get_number(env, argv[2]);
    if (no_memory(env, t->data = calloc(t->len + 1, 1)) || !copy_stops(env, t, argv[3])) return fail(env, t);
    return start(env, t);
}

/* sessionNextBatch(sessions[], samplers or nulls[], input[], -1 for none) -> Promise of bytes and errors */
napi_value session_next_batch(napi_env env, napi_callback_info info) {
    task *t;
    uint32_t i, n = 0;
    ARGUMENTS(3);
    napi_get_array_length(env, argv[0], &n);
    if ((t = new_task(env, BATCH, 2 * (size_t)n)) == NULL) return NULL;
    t->n = n;
    t->sessions = calloc((size_t)n + 1, sizeof *t->sessions);
    t->samplers = calloc((size_t)n + 1, sizeof *t->samplers);
    t->input = calloc((size_t)n + 1, sizeof *t->input);
    t->bytes = calloc((size_t)n + 1, sizeof *t->bytes);
    if (!t->sessions || !t->samplers || !t->input || !t->bytes) {
        throw_memory(env);
        return fail(env, t);
    }
    for (i = 0; i < n; i++) {
        napi_value session, sampler, input;
        box *b;
        int ok;
        napi_get_element(env, argv[0], i, &session);
        napi_get_element(env, argv[1], i, &sampler);
        napi_get_element(env, argv[2], i, &input);
        if ((b = unwrap(env, session, SESSION)) == NULL) return fail(env, t);
        use(env, t, b, session);
        t->sessions[i] = b->handle;
        b = unwrap_optional(env, sampler, SAMPLER, &ok);
        if (!ok) return fail(env, t);
        use(env, t, b, sampler);
        t->samplers[i] = b == NULL ? NULL : b->handle;
        t->input[i] = (int32_t)get_number(env, input);
    }
    return start(env, t);
}
