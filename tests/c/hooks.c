/* The log, the progress of loading, and locking in memory. */
#include "check.h"

typedef struct heard {
    int lines[5], reports, cancel_at;
    float last;
    char text[2000];
    size_t len;
} heard;

static void listen_to_log(void *user, uint32_t level, const char *text, size_t len) {
    heard *h = user;
    CHECK(level >= GRUG_LOG_ERROR && level <= GRUG_LOG_DEBUG && len > 0 && memchr(text, '\n', len) == NULL);
    h->lines[level]++;
    CHECK(h->len + len + 1 < sizeof h->text);
    memcpy(h->text + h->len, text, len);
    h->len += len;
    h->text[h->len++] = '\n';
    h->text[h->len] = '\0';
}

static int32_t listen_to_progress(void *user, float fraction) {
    heard *h = user;
    CHECK(fraction >= h->last && fraction <= 1);
    h->last = fraction;
    h->reports++;
    return h->reports == h->cancel_at;
}

void test_hooks(void) {
    static heard h;
    grug_model_options options = { .size = sizeof options, .log = listen_to_log, .progress = listen_to_progress };
    const uint32_t flags[] = { 0, GRUG_MODEL_NO_MMAP, GRUG_MODEL_NO_MMAP | GRUG_MODEL_PORTABLE };
    grug_model *model = NULL;
    grug_session *session;
    size_t i;
    int reports = 0;
    options.user = &h;
    options.n_threads = 2;

    for (i = 0; i < 3; i++) {
        memset(&h, 0, sizeof h);
        options.flags = flags[i];
        OK(grug_model_load_file(model_path, &options, &model, &err));
        CHECK(h.last >= 1 && h.reports >= 3);
        reports = h.reports;
        CHECK(h.lines[GRUG_LOG_INFO] == 2 && h.lines[GRUG_LOG_ERROR] == 0 && h.lines[GRUG_LOG_WARN] == 0);
        CHECK(strstr(h.text, "parameters") != NULL && strstr(h.text, "2 threads") != NULL);
        CHECK((strstr(h.text, "mapped") != NULL) == (flags[i] == 0));
        CHECK((strstr(h.text, "portable") != NULL) == ((flags[i] & GRUG_MODEL_PORTABLE) != 0));
        /* The log goes on as long as the model does. */
        session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
        CHECK(h.lines[GRUG_LOG_DEBUG] == 1 && strstr(h.text, "32 bytes") != NULL);
        grug_model_free(model);
        grug_session_free(session);
    }

    /* What fails in a batch has a status there, and a sentence here. */
    {
        grug_session *both[2];
        int32_t bytes[2];
        uint8_t full[32] = { 0 };
        memset(&h, 0, sizeof h);
        options.flags = 0;
        OK(grug_model_load_file(model_path, &options, &model, &err));
        both[0] = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
        both[1] = new_session(model, GRUG_OVERFLOW_ERROR, NULL);
        OK(grug_session_feed(both[1], full, sizeof full, &err));
        OK(grug_session_next_batch(both, NULL, NULL, 2, bytes, &err));
        CHECK(bytes[0] >= 0 && bytes[1] == GRUG_EFULL);
        CHECK(h.lines[GRUG_LOG_ERROR] == 1 && strstr(h.text, "session 1 of a batch: ") != NULL);
        grug_session_free(both[0]);
        grug_session_free(both[1]);
        grug_model_free(model);
    }

    /* Every report may cancel. */
    options.flags = flags[2];
    for (i = 1; i <= (size_t)reports; i++) {
        memset(&h, 0, sizeof h);
        h.cancel_at = (int)i;
        model = NULL;
        FAILS(GRUG_ECANCELED, "progress", grug_model_load_file(model_path, &options, &model, &err));
        CHECK(model == NULL && h.reports == (int)i);
    }

    /* A buffer that is not aligned works, and the log says that it costs memory. */
    {
        FILE *file = fopen(model_path, "rb");
        static uint8_t buffer[1 << 18];
        size_t len;
        CHECK(file != NULL);
        len = fread(buffer + 1, 1, sizeof buffer - 1, file);
        CHECK(fclose(file) == 0 && len > 0 && len < sizeof buffer - 1);
        memset(&h, 0, sizeof h);
        options.flags = 0;
        OK(grug_model_load_buffer(buffer + 1, len, GRUG_LOAD_BORROW, &options, &model, &err));
        CHECK(h.lines[GRUG_LOG_WARN] == 1 && strstr(h.text, "aligned") != NULL);
        grug_model_free(model);
    }

    /* A few kilobytes may be locked anywhere. */
    options.flags = GRUG_MODEL_MLOCK;
    for (i = 0; i < 2; i++) {
        memset(&h, 0, sizeof h);
        OK(grug_model_load_file(model_path, &options, &model, &err));
        CHECK(h.last >= 1);
        grug_model_free(model);
        options.flags |= GRUG_MODEL_NO_MMAP;
    }
}
