/* Calls that are quick, made on the event loop. */
#include "addon.h"

napi_value version(napi_env env, napi_callback_info info) {
    napi_value text;
    (void)info;
    napi_create_string_utf8(env, grug_version(), NAPI_AUTO_LENGTH, &text);
    return text;
}

static void set_text(napi_env env, napi_value object, const char *name, const char *text) {
    napi_value value;
    if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value) == napi_ok)
        napi_set_named_property(env, object, name, value);
}

napi_value devices(napi_env env, napi_callback_info info) {
    const uint32_t n = grug_device_count();
    napi_value list;
    uint32_t i;
    (void)info;
    napi_create_array(env, &list);
    for (i = 0; i < n; i++) {
        grug_device device = { .size = sizeof device };
        grug_error err;
        napi_value object;
        if (grug_device_get(i, &device, &err) < 0) return throw_status(env, &err);
        napi_create_object(env, &object);
        set_text(env, object, "name", device.name);
        set_text(env, object, "description", device.description);
        set_text(env, object, "features", device.features);
        set_number(env, object, "memoryTotal", (double)device.memory_total);
        set_number(env, object, "memoryFree", (double)device.memory_free);
        napi_set_element(env, list, i, object);
    }
    return list;
}

napi_value cancel_new(napi_env env, napi_callback_info info) {
    grug_cancel *cancel = grug_cancel_new();
    (void)info;
    if (cancel == NULL) return throw_memory(env);
    return wrap(env, CANCEL, cancel, NULL);
}

napi_value cancel_trigger(napi_env env, napi_callback_info info) {
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], CANCEL)) != NULL) grug_cancel_trigger(b->handle);
    return NULL;
}

napi_value cancel_reset(napi_env env, napi_callback_info info) {
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], CANCEL)) != NULL) grug_cancel_reset(b->handle);
    return NULL;
}

napi_value model_info(napi_env env, napi_callback_info info) {
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

napi_value model_metadata(napi_env env, napi_callback_info info) {
    napi_value object, value;
    grug_error err;
    box *b;
    size_t i;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], MODEL)) == NULL) return NULL;
    napi_create_object(env, &object);
    for (i = 0;; i++) {
        size_t key_len = 0, len = 0;
        char *key, *text;
        const grug_status status = grug_model_get_metadata_key(b->handle, i, NULL, &key_len, &err);
        if (status == GRUG_ENOTFOUND) return object;
        if (status < 0 && status != GRUG_ESPACE) return throw_status(env, &err);
        key = calloc(key_len + 1, 1);
        if (key == NULL) return throw_memory(env);
        grug_model_get_metadata_key(b->handle, i, key, &key_len, NULL);
        grug_model_get_metadata(b->handle, key, NULL, &len, NULL);
        text = calloc(len + 1, 1);
        if (text != NULL) {
            grug_model_get_metadata(b->handle, key, text, &len, NULL);
            if (napi_create_string_utf8(env, text, len, &value) == napi_ok) napi_set_named_property(env, object, key, value);
            free(text);
        }
        free(key);
    }
}

/* sessionNew(model, maxContext, overflow, flags, cancel) */
napi_value session_new(napi_env env, napi_callback_info info) {
    grug_session_options options = { .size = sizeof options };
    grug_session *session = NULL;
    grug_error err;
    box *model, *cancel;
    ARGUMENTS(5);
    if ((model = unwrap(env, argv[0], MODEL)) == NULL || (cancel = unwrap(env, argv[4], CANCEL)) == NULL) return NULL;
    options.max_context = get_u64(env, argv[1]);
    options.overflow = (uint32_t)get_number(env, argv[2]);
    options.flags = (uint32_t)get_number(env, argv[3]);
    options.cancel = cancel->handle;
    if (grug_session_new(model->handle, &options, &session, &err) < 0) return throw_status(env, &err);
    return wrap(env, SESSION, session, model->log);
}

/* sessionFork(session, cancel) */
napi_value session_fork(napi_env env, napi_callback_info info) {
    grug_session *fork = NULL;
    grug_error err;
    box *b, *cancel;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL || (cancel = unwrap(env, argv[1], CANCEL)) == NULL) return NULL;
    if (grug_session_fork(b->handle, &fork, &err) < 0 || grug_session_set_cancel(fork, cancel->handle, &err) < 0) {
        grug_session_free(fork);
        return throw_status(env, &err);
    }
    return wrap(env, SESSION, fork, b->log);
}

napi_value session_reset(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    return grug_session_reset(b->handle, &err) < 0 ? throw_status(env, &err) : NULL;
}

napi_value session_position(napi_env env, napi_callback_info info) {
    napi_value position;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap(env, argv[0], SESSION)) == NULL) return NULL;
    napi_create_double(env, (double)grug_session_position(b->handle), &position);
    return position;
}

napi_value session_rewind(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    return grug_session_rewind(b->handle, get_u64(env, argv[1]), &err) < 0 ? throw_status(env, &err) : NULL;
}

napi_value session_save(napi_env env, napi_callback_info info) {
    grug_error err;
    napi_value bytes;
    uint8_t *state;
    size_t len = 0;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL) return NULL;
    if (grug_session_save(b->handle, NULL, &len, &err) != GRUG_ESPACE) return throw_status(env, &err);
    if ((state = malloc(len)) == NULL) return throw_memory(env);
    bytes = grug_session_save(b->handle, state, &len, &err) < 0 ? throw_status(env, &err)
                                                                 : new_bytes(env, state, len);
    free(state);
    return bytes;
}

napi_value session_restore(napi_env env, napi_callback_info info) {
    grug_error err;
    uint8_t *data;
    size_t len;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SESSION)) == NULL || !get_bytes(env, argv[1], &data, &len)) return NULL;
    return grug_session_restore(b->handle, data, len, &err) < 0 ? throw_status(env, &err) : NULL;
}

/* grammarNew(kind, source as Uint8Array) */
napi_value grammar_new(napi_env env, napi_callback_info info) {
    grug_grammar *grammar = NULL;
    grug_error err;
    uint8_t *source;
    size_t len;
    ARGUMENTS(2);
    if (!get_bytes(env, argv[1], &source, &len)) return NULL;
    if (grug_grammar_new((uint32_t)get_number(env, argv[0]), (const char *)source, len, &grammar, &err) < 0)
        return throw_status(env, &err);
    return wrap(env, GRAMMAR, grammar, NULL);
}

/* samplerNew(numbers, seed, flags, bias or null, grammar or null): numbers are temperature, topP, minP, typicalP, topK,
 * penaltyWindow, repeatPenalty, frequencyPenalty, presencePenalty, mirostatTau, mirostatEta */
napi_value sampler_new(napi_env env, napi_callback_info info) {
    grug_sampler_options options = { .size = sizeof options };
    grug_sampler *sampler = NULL;
    grug_error err;
    double numbers[11];
    uint32_t i;
    int ok;
    box *grammar;
    ARGUMENTS(5);
    for (i = 0; i < 11; i++) {
        napi_value number;
        if (napi_get_element(env, argv[0], i, &number) != napi_ok) return NULL;
        numbers[i] = get_number(env, number);
    }
    options.temperature = (float)numbers[0];
    options.top_p = (float)numbers[1];
    options.min_p = (float)numbers[2];
    options.typical_p = (float)numbers[3];
    options.top_k = (uint32_t)numbers[4];
    options.penalty_window = (uint32_t)numbers[5];
    options.repeat_penalty = (float)numbers[6];
    options.frequency_penalty = (float)numbers[7];
    options.presence_penalty = (float)numbers[8];
    options.mirostat_tau = (float)numbers[9];
    options.mirostat_eta = (float)numbers[10];
    options.seed = get_u64(env, argv[1]);
    options.flags = (uint32_t)get_number(env, argv[2]);
    if (!is_nothing(env, argv[3]) && (options.bias = get_floats(env, argv[3], 256)) == NULL) return NULL;
    grammar = unwrap_optional(env, argv[4], GRAMMAR, &ok);
    if (!ok) return NULL;
    options.grammar = grammar == NULL ? NULL : grammar->handle;
    if (grug_sampler_new(&options, &sampler, &err) < 0) return throw_status(env, &err);
    return wrap(env, SAMPLER, sampler, NULL);
}

napi_value sampler_fork(napi_env env, napi_callback_info info) {
    grug_sampler *fork = NULL;
    grug_error err;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    if (grug_sampler_fork(b->handle, &fork, &err) < 0) return throw_status(env, &err);
    return wrap(env, SAMPLER, fork, NULL);
}

napi_value sampler_reset(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    return grug_sampler_reset(b->handle, get_u64(env, argv[1]), &err) < 0 ? throw_status(env, &err) : NULL;
}

/* samplerPick(sampler, Float32Array of 256) */
napi_value sampler_pick(napi_env env, napi_callback_info info) {
    grug_error err;
    napi_value byte;
    float *logits;
    int32_t picked;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL || (logits = get_floats(env, argv[1], 256)) == NULL)
        return NULL;
    picked = grug_sampler_pick(b->handle, logits, &err);
    if (picked < 0) return throw_status(env, &err);
    napi_create_int32(env, picked, &byte);
    return byte;
}

/* samplerAccept(sampler, byte) */
napi_value sampler_accept(napi_env env, napi_callback_info info) {
    grug_error err;
    box *b;
    ARGUMENTS(2);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    return grug_sampler_accept(b->handle, (uint8_t)get_number(env, argv[1]), &err) < 0 ? throw_status(env, &err) : NULL;
}

/* samplerAllowed(sampler) -> { mask: 32 bytes, complete } */
napi_value sampler_allowed(napi_env env, napi_callback_info info) {
    grug_error err;
    napi_value object, complete;
    uint8_t mask[32];
    int32_t status;
    box *b;
    ARGUMENTS(1);
    if ((b = unwrap_idle(env, argv[0], SAMPLER)) == NULL) return NULL;
    if ((status = grug_sampler_allowed(b->handle, mask, &err)) < 0) return throw_status(env, &err);
    napi_create_object(env, &object);
    napi_set_named_property(env, object, "mask", new_bytes(env, mask, sizeof mask));
    napi_get_boolean(env, status == 1, &complete);
    napi_set_named_property(env, object, "complete", complete);
    return object;
}
