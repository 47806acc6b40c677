/* Models: from files and buffers, their description, and what is no model. */
#include "check.h"

static uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long size;
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    size = ftell(file);
    CHECK(size > 0 && fseek(file, 0, SEEK_SET) == 0);
    data = malloc((size_t)size);
    CHECK(data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size);
    CHECK(fclose(file) == 0);
    *len = (size_t)size;
    return data;
}

/* The logits after a text, which say whether two models are the same. */
static void logits_of(const grug_model *model, float logits[256]) {
    grug_session *session = NULL;
    OK(grug_session_new(model, NULL, &session, &err));
    feed(session, "same model?");
    OK(grug_session_get_logits(session, logits, &err));
    grug_session_free(session);
}

static void files(void) {
    grug_model *model = (grug_model *)&model;
    grug_model *const untouched = model;
    grug_model_options options = { .size = sizeof options, .flags = GRUG_MODEL_NO_MMAP, .device = "auto" };
    float mapped[256], read[256];

    FAILS(GRUG_EINVAL, "path is NULL", grug_model_load_file(NULL, NULL, &model, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_model_load_file(model_path, NULL, NULL, &err));
    FAILS(GRUG_EIO, "no/such/model", grug_model_load_file("no/such/model", NULL, &model, &err));
    FAILS(GRUG_EIO, "", grug_model_load_file("/", NULL, &model, &err));
    FAILS(GRUG_EIO, "", grug_model_load_file("", NULL, &model, &err));
    CHECK(grug_model_load_file("no/such/model", NULL, &model, NULL) == GRUG_EIO);
    CHECK(model == untouched);

    OK(grug_model_load_file(model_path, NULL, &model, &err));
    logits_of(model, mapped);
    grug_model_free(model);
    OK(grug_model_load_file(model_path, &options, &model, &err));
    logits_of(model, read);
    grug_model_free(model);
    CHECK(memcmp(mapped, read, sizeof read) == 0);
}

static void buffers(void) {
    grug_model *model = NULL, *copied = NULL, *borrowed = NULL;
    grug_session *session = NULL;
    float from_file[256], from_copy[256], from_borrowed[256];
    size_t len, i;
    uint8_t *data = read_file(model_path, &len);

    model = load_model(1);
    logits_of(model, from_file);

    OK(grug_model_load_buffer(data, len, GRUG_LOAD_BORROW, NULL, &borrowed, &err));
    logits_of(borrowed, from_borrowed);
    CHECK(memcmp(from_file, from_borrowed, sizeof from_file) == 0);
    /* The session is the last handle that uses the buffer. */
    session = new_session(borrowed, GRUG_OVERFLOW_SLIDE, NULL);
    grug_model_free(borrowed);
    feed(session, "same model?");
    OK(grug_session_get_logits(session, from_borrowed, &err));
    CHECK(memcmp(from_file, from_borrowed, sizeof from_file) == 0);
    grug_session_free(session);

    OK(grug_model_load_buffer(data, len, GRUG_LOAD_COPY, NULL, &copied, &err));
    FAILS(GRUG_EFORMAT, "model buffer", grug_model_load_buffer(data, len - 1, GRUG_LOAD_COPY, NULL, &model, &err));
    FAILS(GRUG_EFORMAT, "model buffer", grug_model_load_buffer(data, 0, GRUG_LOAD_BORROW, NULL, &model, &err));
    FAILS(GRUG_EFORMAT, "model buffer", grug_model_load_buffer(NULL, 0, GRUG_LOAD_COPY, NULL, &model, &err));
    FAILS(GRUG_EINVAL, "data is NULL", grug_model_load_buffer(NULL, 5, GRUG_LOAD_COPY, NULL, &model, &err));
    FAILS(GRUG_EINVAL, "data", grug_model_load_buffer(data, (size_t)-1, GRUG_LOAD_COPY, NULL, &model, &err));
    FAILS(GRUG_EINVAL, "mode 2", grug_model_load_buffer(data, len, 2, NULL, &model, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_model_load_buffer(data, len, GRUG_LOAD_COPY, NULL, NULL, &err));
    /* A spoilt header is an error wherever it is spoilt, or harmless; it never crashes. */
    for (i = 0; i < 512 && i < len; i += 5) {
        grug_model *spoilt = NULL;
        data[i] ^= 0x15;
        if (grug_model_load_buffer(data, len, GRUG_LOAD_COPY, NULL, &spoilt, NULL) >= 0) grug_model_free(spoilt);
        data[i] ^= 0x15;
    }
    /* A copy does not need the buffer. */
    memset(data, 0, len);
    free(data);
    logits_of(copied, from_copy);
    CHECK(memcmp(from_file, from_copy, sizeof from_file) == 0);
    grug_model_free(copied);
    grug_model_free(model);
}

static void description(void) {
    grug_model *model = load_model(1);
    grug_model_info info = { .size = sizeof info };
    char value[64], key[64];
    size_t len, i, keys = 0, notes = 0;
    grug_error unused;

    FAILS(GRUG_EINVAL, "m is NULL", grug_model_get_info(NULL, &info, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_model_get_info(model, NULL, &err));
    OK(grug_model_get_info(model, &info, &err));
    CHECK(info.weight_bytes == 4 * info.n_params);
    CHECK(info.fingerprint != 0 && info.rewind_bytes == CONTEXT && info.state_bytes > 3 * CONTEXT);
    CHECK(info.context_bytes == CONTEXT && info.embedding_dim == 16 && info.end_byte == -1);

    len = sizeof value;
    OK(grug_model_get_metadata(model, "note", value, &len, &err));
    CHECK(len == 9 && memcmp(value, "for tests", 9) == 0);
    len = 8;
    memset(value, '?', sizeof value);
    FAILS(GRUG_ESPACE, "9 bytes", grug_model_get_metadata(model, "note", value, &len, &err));
    CHECK(len == 9 && value[0] == '?');
    len = 0;
    FAILS(GRUG_ESPACE, "9 bytes", grug_model_get_metadata(model, "note", NULL, &len, &err));
    CHECK(len == 9);
    OK(grug_model_get_metadata(model, "note", value, &len, &err));
    len = 8;
    FAILS(GRUG_EINVAL, "value is NULL", grug_model_get_metadata(model, "note", NULL, &len, &err));
    CHECK(len == 8);
    FAILS(GRUG_ENOTFOUND, "nonsense", grug_model_get_metadata(model, "nonsense", value, &len, &err));
    FAILS(GRUG_EINVAL, "key", grug_model_get_metadata(model, NULL, value, &len, &err));
    FAILS(GRUG_EINVAL, "len is NULL", grug_model_get_metadata(model, "note", value, NULL, &err));
    FAILS(GRUG_EINVAL, "key is not UTF-8", grug_model_get_metadata(model, "\xc3", value, &len, &err));

    for (i = 0;; i++) {
        int32_t status;
        len = sizeof key;
        status = grug_model_get_metadata_key(model, i, key, &len, &unused);
        if (status == GRUG_ENOTFOUND) break;
        CHECK(status == GRUG_OK);
        keys++;
        notes += len == 4 && memcmp(key, "note", 4) == 0;
    }
    CHECK(keys >= 2 && notes == 1);
    FAILS(GRUG_ENOTFOUND, "entries", grug_model_get_metadata_key(model, (size_t)-1, key, &len, &err));
    grug_model_free(model);
}

void test_model(void) {
    files();
    buffers();
    description();
}
