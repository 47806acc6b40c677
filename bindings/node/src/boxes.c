/* Handles as externals, and the log. */
#include "addon.h"

/* Lines that nobody has taken yet are at most so many; what comes then is lost. */
enum { MOST_LINES = 1000 };

typedef struct line {
    struct line *next;
    uint32_t level;
    size_t len;
    char text[];
} line;

/* What the library writes to, from any thread, until JavaScript takes it; and how far loading is. Whatever may write to
 * it holds it. */
struct log {
    _Atomic float progress;
    _Atomic(line *) lines; /* the last one first */
    atomic_int n_lines;
    int holders; /* changes on the thread of the environment alone */
};

static void log_release(log *l) {
    line *at, *next;
    if (l == NULL || --l->holders > 0) return;
    for (at = atomic_load(&l->lines); at != NULL; at = next) {
        next = at->next;
        free(at);
    }
    free(l);
}

void log_write(void *user, uint32_t level, const char *text, size_t len) {
    log *l = user;
    line *new_line;
    if (atomic_fetch_add(&l->n_lines, 1) >= MOST_LINES || (new_line = malloc(sizeof *new_line + len)) == NULL) {
        atomic_fetch_sub(&l->n_lines, 1);
        return;
    }
    new_line->level = level;
    new_line->len = len;
    memcpy(new_line->text, text, len);
    new_line->next = atomic_load(&l->lines);
    while (!atomic_compare_exchange_weak(&l->lines, &new_line->next, new_line)) {
    }
}

int32_t log_progress(void *user, float fraction) {
    atomic_store(&((log *)user)->progress, fraction);
    return 0;
}

void box_free_handle(box *b) {
    void *handle = b->handle;
    b->handle = NULL;
    switch (b->kind) {
    case MODEL: grug_model_free(handle); break;
    case SESSION: grug_session_free(handle); break;
    case SAMPLER: grug_sampler_free(handle); break;
    case CANCEL: grug_cancel_free(handle); break;
    case GRAMMAR: grug_grammar_free(handle); break;
    case LOG: log_release(handle); break;
    }
    log_release(b->log);
    b->log = NULL;
}

static void finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    box_free_handle(data);
    free(data);
}

napi_value wrap(napi_env env, enum kind kind, void *handle, log *to) {
    napi_value external;
    box *b = calloc(1, sizeof *b);
    box failed = { kind, handle, NULL, 0, 0 };
    if (b == NULL) {
        box_free_handle(&failed);
        return throw_memory(env);
    }
    b->kind = kind;
    b->handle = handle;
    b->log = to;
    if (to != NULL) to->holders++;
    if (napi_create_external(env, b, finalize, NULL, &external) != napi_ok) {
        finalize(env, b, NULL);
        return NULL;
    }
    return external;
}

box *unwrap(napi_env env, napi_value value, enum kind kind) {
    static const char *const NAMES[] = { "expected a Model", "expected a Session", "expected a Sampler",
                                         "expected a cancellation token", "expected a Grammar", "expected a log" };
    napi_valuetype type;
    void *data = NULL;
    if (napi_typeof(env, value, &type) != napi_ok || type != napi_external
        || napi_get_value_external(env, value, &data) != napi_ok || ((box *)data)->kind != kind) {
        napi_throw_type_error(env, "GRUG_EINVAL", NAMES[kind]);
        return NULL;
    }
    if (((box *)data)->handle == NULL || ((box *)data)->closing) {
        throw_text(env, GRUG_EINVAL, "it is closed");
        return NULL;
    }
    return data;
}

box *unwrap_optional(napi_env env, napi_value value, enum kind kind, int *ok) {
    box *b;
    *ok = 1;
    if (is_nothing(env, value)) return NULL;
    b = unwrap(env, value, kind);
    *ok = b != NULL;
    return b;
}

box *unwrap_idle(napi_env env, napi_value value, enum kind kind) {
    box *b = unwrap(env, value, kind);
    if (b != NULL && b->users > 0) {
        throw_text(env, GRUG_EBUSY, "another call is using this handle");
        return NULL;
    }
    return b;
}

/* close(handle): frees it, or has it freed when the calls that use it end. */
napi_value close_handle(napi_env env, napi_callback_info info) {
    void *data = NULL;
    box *b;
    ARGUMENTS(1);
    if (napi_get_value_external(env, argv[0], &data) != napi_ok) return NULL;
    b = data;
    b->closing = 1;
    if (b->users == 0 && b->handle != NULL) box_free_handle(b);
    return NULL;
}

/* logNew() -> a log for modelLoad */
napi_value log_new(napi_env env, napi_callback_info info) {
    log *l = calloc(1, sizeof *l);
    (void)info;
    if (l == NULL) return throw_memory(env);
    atomic_init(&l->progress, 0);
    atomic_init(&l->lines, NULL);
    atomic_init(&l->n_lines, 0);
    l->holders = 1;
    return wrap(env, LOG, l, NULL);
}

/* logTake(log) -> [level, line, level, line, ...], what was written since it was asked for last */
napi_value log_take(napi_env env, napi_callback_info info) {
    napi_value list, value;
    line *at, *next, *first = NULL;
    uint32_t n = 0;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], LOG)) == NULL) return NULL;
    napi_create_array(env, &list);
    at = atomic_exchange(&((log *)b->handle)->lines, NULL);
    for (; at != NULL; at = next) { /* the last one first no more */
        next = at->next;
        at->next = first;
        first = at;
    }
    for (at = first; at != NULL; at = next) {
        next = at->next;
        atomic_fetch_sub(&((log *)b->handle)->n_lines, 1);
        napi_create_uint32(env, at->level, &value);
        napi_set_element(env, list, n++, value);
        if (napi_create_string_utf8(env, at->text, at->len, &value) == napi_ok) napi_set_element(env, list, n, value);
        n++;
        free(at);
    }
    return list;
}

/* logProgress(log) -> how far the loading that has it is, from 0 to 1 */
napi_value log_get_progress(napi_env env, napi_callback_info info) {
    napi_value value = NULL;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], LOG)) == NULL) return NULL;
    napi_create_double(env, (double)atomic_load(&((log *)b->handle)->progress), &value);
    return value;
}
