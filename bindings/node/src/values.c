/* Errors, numbers and typed arrays between JavaScript and C. */
#include "addon.h"

napi_value make_error(napi_env env, grug_status status, const char *message) {
    napi_value code, text, error, number;
    napi_create_string_utf8(env, grug_status_name(status), NAPI_AUTO_LENGTH, &code);
    napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
    napi_create_error(env, code, text, &error);
    napi_create_int32(env, status, &number);
    napi_set_named_property(env, error, "status", number);
    return error;
}

napi_value throw_text(napi_env env, grug_status status, const char *text) {
    napi_throw(env, make_error(env, status, text));
    return NULL;
}

napi_value throw_memory(napi_env env) { return throw_text(env, GRUG_ENOMEM, "out of memory"); }

napi_value throw_status(napi_env env, const grug_error *err) { return throw_text(env, err->status, err->message); }

double get_number(napi_env env, napi_value value) {
    double number = 0;
    napi_get_value_double(env, value, &number);
    return number;
}

uint64_t get_u64(napi_env env, napi_value value) {
    uint64_t number = 0;
    bool lossless;
    if (napi_get_value_bigint_uint64(env, value, &number, &lossless) != napi_ok) {
        double d = get_number(env, value);
        number = d > 0 && d < 9007199254740992.0 ? (uint64_t)d : 0;
    }
    return number;
}

int is_nothing(napi_env env, napi_value value) {
    napi_valuetype type;
    return napi_typeof(env, value, &type) == napi_ok && (type == napi_null || type == napi_undefined);
}

int get_bytes(napi_env env, napi_value value, uint8_t **data, size_t *len) {
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

float *get_floats(napi_env env, napi_value value, size_t len) {
    bool is = false;
    napi_typedarray_type type;
    void *start = NULL;
    size_t n = 0;
    if (napi_is_typedarray(env, value, &is) != napi_ok || !is
        || napi_get_typedarray_info(env, value, &type, &n, &start, NULL, NULL) != napi_ok
        || type != napi_float32_array || n != len) {
        napi_throw_type_error(env, "GRUG_EINVAL", "expected a Float32Array of 256 numbers");
        return NULL;
    }
    return start;
}

napi_value new_bytes(napi_env env, const uint8_t *data, size_t len) {
    napi_value buffer, array = NULL;
    void *to = NULL;
    if (napi_create_arraybuffer(env, len, &to, &buffer) != napi_ok) return NULL;
    if (len > 0) memcpy(to, data, len);
    napi_create_typedarray(env, napi_uint8_array, len, buffer, 0, &array);
    return array;
}

napi_value new_floats(napi_env env, const float *data, size_t n) {
    napi_value buffer, array = NULL;
    void *to = NULL;
    if (napi_create_arraybuffer(env, n * sizeof *data, &to, &buffer) != napi_ok) return NULL;
    if (n > 0) memcpy(to, data, n * sizeof *data);
    napi_create_typedarray(env, napi_float32_array, n, buffer, 0, &array);
    return array;
}

void set_number(napi_env env, napi_value object, const char *name, double number) {
    napi_value value;
    napi_create_double(env, number, &value);
    napi_set_named_property(env, object, name, value);
}
