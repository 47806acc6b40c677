/* Sessions: feeding, predicting, generating, scoring, and the end of the context. */
#include "check.h"

static void misuse(const grug_model *model) {
    grug_session *session = (grug_session *)&session;
    grug_session *const untouched = session;
    uint8_t buf[4] = { 1, 2, 3, 4 };
    float logits[256];
    double total = -1;
    size_t n = 77;
    grug_bytes stop = { NULL, 0 };

    FAILS(GRUG_EINVAL, "m is NULL", grug_session_new(NULL, NULL, &session, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_session_new(model, NULL, NULL, &err));
    CHECK(session == untouched);
    session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);

    FAILS(GRUG_EINVAL, "s is NULL", grug_session_feed(NULL, buf, 1, &err));
    FAILS(GRUG_EINVAL, "data is NULL", grug_session_feed(session, NULL, 1, &err));
    FAILS(GRUG_EINVAL, "data", grug_session_feed(session, buf, (size_t)-1, &err));
    OK(grug_session_feed(session, NULL, 0, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_next(NULL, NULL, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_reset(NULL, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_get_logits(NULL, logits, &err));
    FAILS(GRUG_EINVAL, "logits is NULL", grug_session_get_logits(session, NULL, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_score(NULL, buf, 1, NULL, &total, &err));
    FAILS(GRUG_EINVAL, "total is NULL", grug_session_score(session, buf, 1, NULL, NULL, &err));
    FAILS(GRUG_EINVAL, "data is NULL", grug_session_score(session, NULL, 1, NULL, &total, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_generate(NULL, NULL, NULL, 0, buf, 4, &n, &err));
    FAILS(GRUG_EINVAL, "buf is NULL", grug_session_generate(session, NULL, NULL, 0, NULL, 4, &n, &err));
    FAILS(GRUG_EINVAL, "n is NULL", grug_session_generate(session, NULL, NULL, 0, buf, 4, NULL, &err));
    FAILS(GRUG_EINVAL, "stops is NULL", grug_session_generate(session, NULL, NULL, 1, buf, 4, &n, &err));
    n = 77; /* generate says how many bytes came, whatever happens */
    FAILS(GRUG_EINVAL, "stops[0] is empty", grug_session_generate(session, NULL, &stop, 1, buf, 4, &n, &err));
    CHECK(n == 0);
    FAILS(GRUG_EINVAL, "nats is not at a multiple of 4 bytes",
          grug_session_score(session, buf, 1, (float *)(void *)((char *)logits + 1), &total, &err));
    stop.len = 1;
    FAILS(GRUG_EINVAL, "stops[0]", grug_session_generate(session, NULL, &stop, 1, buf, 4, &n, &err));
    CHECK(grug_session_next(NULL, NULL, NULL) == GRUG_EINVAL);
    CHECK(n == 0 && total == -1 && buf[0] == 1 && buf[3] == 4 && grug_session_position(session) == 0);

    /* Nothing of this made it unusable. */
    OK(grug_session_generate(session, NULL, NULL, 0, NULL, 0, &n, &err));
    CHECK(n == 0);
    OK(grug_session_generate(session, NULL, NULL, 0, buf, 4, &n, &err));
    CHECK(n == 4 && grug_session_position(session) == 4);
    grug_session_free(session);
}

/* One call or many, next or generate: the same bytes. */
static void determinism(const grug_model *model) {
    uint8_t whole[3 * CONTEXT], pieces[3 * CONTEXT];
    float logits[256], again[256];
    size_t n, done;
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_sampler *sampler = new_sampler(1.0f, 42);

    feed(session, "hello");
    OK(grug_session_generate(session, sampler, NULL, 0, whole, sizeof whole, &n, &err));
    CHECK(n == sizeof whole && grug_session_position(session) == 5 + n);
    OK(grug_session_get_logits(session, logits, &err));

    OK(grug_session_reset(session, &err));
    CHECK(grug_session_position(session) == 0);
    OK(grug_sampler_reset(sampler, 42, &err));
    feed(session, "hello");
    for (done = 0; done < sizeof pieces; done += n) {
        size_t cap = done % 7 < sizeof pieces - done ? done % 7 : sizeof pieces - done;
        OK(grug_session_generate(session, sampler, NULL, 0, pieces + done, cap, &n, &err));
        CHECK(n == cap);
        if (cap == 0) {
            int32_t byte = grug_session_next(session, sampler, NULL);
            CHECK(byte >= 0 && byte <= 255);
            pieces[done] = (uint8_t)byte;
            n = 1;
        }
    }
    CHECK(memcmp(whole, pieces, sizeof whole) == 0);
    OK(grug_session_get_logits(session, again, &err));
    CHECK(memcmp(logits, again, sizeof logits) == 0);

    /* By hand: logits out, byte picked, byte fed. */
    OK(grug_session_reset(session, &err));
    OK(grug_sampler_reset(sampler, 42, &err));
    feed(session, "hello");
    for (done = 0; done < sizeof whole; done++) {
        uint8_t byte;
        int32_t picked;
        OK(grug_session_get_logits(session, logits, &err));
        OK(picked = grug_sampler_pick(sampler, logits, &err));
        byte = (uint8_t)picked;
        CHECK(byte == whole[done]);
        OK(grug_session_feed(session, &byte, 1, &err));
    }

    /* Another seed gives another text. */
    OK(grug_session_reset(session, &err));
    OK(grug_sampler_reset(sampler, 43, &err));
    feed(session, "hello");
    OK(grug_session_generate(session, sampler, NULL, 0, pieces, sizeof pieces, &n, &err));
    CHECK(memcmp(whole, pieces, sizeof whole) != 0);
    grug_sampler_free(sampler);
    grug_session_free(session);
}

/* An empty session begins with a byte 0 that position does not count. */
static void implicit_start(const grug_model *model) {
    static const uint8_t zero = 0;
    float empty[256], after_zero[256];
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    OK(grug_session_get_logits(session, empty, &err));
    CHECK(grug_session_position(session) == 0);
    OK(grug_session_reset(session, &err));
    OK(grug_session_feed(session, &zero, 1, &err));
    CHECK(grug_session_position(session) == 1);
    OK(grug_session_get_logits(session, after_zero, &err));
    CHECK(memcmp(empty, after_zero, sizeof empty) == 0);
    grug_session_free(session);
}

static void greedy(const grug_model *model) {
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_sampler *sampler = NULL;
    uint8_t with_null[20], with_greedy[20];
    size_t n, i;
    OK(grug_sampler_new(NULL, &sampler, &err));
    feed(session, "x");
    OK(grug_session_generate(session, NULL, NULL, 0, with_null, sizeof with_null, &n, &err));
    OK(grug_session_reset(session, &err));
    feed(session, "x");
    for (i = 0; i < sizeof with_greedy; i++) {
        float logits[256];
        int best = 0, b;
        int32_t next;
        OK(grug_session_get_logits(session, logits, &err));
        for (b = 1; b < 256; b++) best = logits[b] > logits[best] ? b : best;
        OK(next = grug_session_next(session, sampler, &err));
        CHECK(next == best);
        with_greedy[i] = (uint8_t)next;
    }
    CHECK(memcmp(with_null, with_greedy, sizeof with_null) == 0);
    grug_sampler_free(sampler);
    grug_session_free(session);
}

static void stops(const grug_model *model) {
    enum { N = 40 };
    uint8_t free_text[N], text[N];
    grug_bytes stop[20];
    size_t n = 0, at, i;
    int32_t status;
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_sampler *sampler = new_sampler(1.0f, 7);
    OK(grug_session_generate(session, sampler, NULL, 0, free_text, N, &n, &err));

    /* The bytes 20..23 of the text as a stop sequence; they may appear earlier, if the text has them twice. */
    for (at = 0; memcmp(free_text + at, free_text + 20, 3) != 0; at++) {}
    for (i = 0; i < 20; i++) stop[i].data = (const uint8_t *)"\xff\xff\xff\xff\xff\xff", stop[i].len = 6;
    stop[19].data = free_text + 20;
    stop[19].len = 3;
    OK(grug_session_reset(session, &err));
    OK(grug_sampler_reset(sampler, 7, &err));
    OK(status = grug_session_generate(session, sampler, stop, 20, text, N, &n, &err));
    CHECK(status == GRUG_STOP_SEQUENCE && n == at + 3 && memcmp(text, free_text, n) == 0);
    CHECK(grug_session_position(session) == n);

    /* A byte a call: the match spans calls. */
    OK(grug_session_reset(session, &err));
    OK(grug_sampler_reset(sampler, 7, &err));
    for (i = 0;; i++) {
        CHECK(i < N);
        OK(status = grug_session_generate(session, sampler, stop + 19, 1, text + i, 1, &n, &err));
        CHECK(n == 1);
        if (status != GRUG_STOP_CAPACITY) break;
    }
    CHECK(status == GRUG_STOP_SEQUENCE && i + 1 == at + 3 && memcmp(text, free_text, i + 1) == 0);
    grug_sampler_free(sampler);
    grug_session_free(session);
}

/* A model with an end byte pauses after it, and goes on when asked again. */
static void end_byte(void) {
    enum { N = 20000 };
    static uint8_t text[N];
    grug_model *model = NULL;
    grug_model_info info = { .size = sizeof info };
    grug_session *session = NULL;
    grug_sampler *sampler = new_sampler(1.0f, 3);
    size_t n;
    int32_t status;
    OK(grug_model_load_file(end_byte_model_path, NULL, &model, &err));
    OK(grug_model_get_info(model, &info, &err));
    CHECK(info.end_byte == END_BYTE);
    session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    OK(status = grug_session_generate(session, sampler, NULL, 0, text, N, &n, &err));
    CHECK(status == GRUG_STOP_END_BYTE && n < N && text[n - 1] == END_BYTE);
    CHECK(memchr(text, END_BYTE, n - 1) == NULL);
    OK(status = grug_session_generate(session, sampler, NULL, 0, text, 1, &n, &err));
    CHECK(n == 1);
    grug_sampler_free(sampler);
    grug_session_free(session);
    grug_model_free(model);
}

static void scoring(const grug_model *model) {
    static const uint8_t data[] = "score me";
    enum { N = sizeof data - 1 };
    float nats[N + 1];
    double total = 0, sum = 0, without = 0, one = 0;
    size_t i;
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    nats[N] = -7;
    OK(grug_session_score(session, data, N, nats, &total, &err));
    CHECK(grug_session_position(session) == N && nats[N] == -7);
    for (i = 0; i < N; i++) {
        CHECK(nats[i] > 0);
        sum += nats[i];
    }
    CHECK(fabs(total - sum) < 1e-4 * sum);
    OK(grug_session_reset(session, &err));
    OK(grug_session_score(session, data, N, NULL, &without, &err));
    CHECK(without == total);

    /* The first byte by hand, from the logits of an empty session. */
    OK(grug_session_reset(session, &err));
    {
        float logits[256];
        double z = 0;
        OK(grug_session_get_logits(session, logits, &err));
        for (i = 0; i < 256; i++) z += exp(logits[i]);
        one = log(z) - logits[data[0]];
    }
    CHECK(fabs(one - nats[0]) < 1e-4);
    OK(grug_session_score(session, NULL, 0, NULL, &total, &err));
    CHECK(total == 0);
    grug_session_free(session);
}

static void overflow(const grug_model *model) {
    uint8_t data[CONTEXT + 8];
    uint8_t text[16];
    size_t n = 99;
    uint64_t position;
    grug_session_options options = { .size = sizeof options, .max_context = 8, .overflow = GRUG_OVERFLOW_ERROR };
    grug_session *session = new_session(model, GRUG_OVERFLOW_ERROR, NULL);
    memset(data, 'a', sizeof data);

    FAILS(GRUG_EFULL, "context", grug_session_feed(session, data, sizeof data, &err));
    position = grug_session_position(session);
    CHECK(position <= CONTEXT);
    OK(grug_session_feed(session, data, CONTEXT - (size_t)position, &err));
    CHECK(grug_session_position(session) == CONTEXT);
    FAILS(GRUG_EFULL, "context", grug_session_feed(session, data, 1, &err));
    FAILS(GRUG_EFULL, "context", grug_session_next(session, NULL, &err));
    FAILS(GRUG_EFULL, "context", grug_session_generate(session, NULL, NULL, 0, text, 16, &n, &err));
    CHECK(n == 0 && grug_session_position(session) == CONTEXT);
    OK(grug_session_reset(session, &err));
    OK(grug_session_feed(session, data, CONTEXT - 4, &err));
    FAILS(GRUG_EFULL, "context", grug_session_generate(session, NULL, NULL, 0, text, 16, &n, &err));
    CHECK(n == 4);
    grug_session_free(session);

    session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    OK(grug_session_feed(session, data, sizeof data, &err));
    OK(grug_session_generate(session, NULL, NULL, 0, text, 16, &n, &err));
    CHECK(n == 16 && grug_session_position(session) == sizeof data + 16);
    grug_session_free(session);

    /* A context smaller than the model's. */
    OK(grug_session_new(model, &options, &session, &err));
    FAILS(GRUG_EFULL, "context", grug_session_feed(session, data, 9, &err));
    OK(grug_session_reset(session, &err));
    OK(grug_session_feed(session, data, 8, &err));
    FAILS(GRUG_EFULL, "context", grug_session_feed(session, data, 1, &err));
    grug_session_free(session);
}

static void thread_counts(const grug_model *model) {
    uint8_t one[2 * CONTEXT], three[2 * CONTEXT];
    size_t n;
    grug_model *other = load_model(3);
    grug_session *a = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_session *b = new_session(other, GRUG_OVERFLOW_SLIDE, NULL);
    grug_sampler *sampler = new_sampler(1.0f, 1);
    OK(grug_session_generate(a, sampler, NULL, 0, one, sizeof one, &n, &err));
    OK(grug_sampler_reset(sampler, 1, &err));
    OK(grug_session_generate(b, sampler, NULL, 0, three, sizeof three, &n, &err));
    CHECK(memcmp(one, three, sizeof one) == 0);
    grug_sampler_free(sampler);
    grug_session_free(a);
    grug_session_free(b);
    grug_model_free(other);
}

void test_session(void) {
    grug_model *model = load_model(1);
    misuse(model);
    determinism(model);
    implicit_start(model);
    greedy(model);
    stops(model);
    end_byte();
    scoring(model);
    overflow(model);
    thread_counts(model);
    grug_model_free(model);
}
