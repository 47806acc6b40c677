/* Copies of a session in time: fork, rewind, save and restore; and steps of many sessions at once. */
#include "check.h"

static void logits_of(grug_session *session, float logits[256]) {
    OK(grug_session_get_logits(session, logits, &err));
}

/* What a session would write next, from a sampler of this seed. */
static void text_of(grug_session *session, uint64_t seed, uint8_t *text, size_t len) {
    grug_sampler *sampler = new_sampler(1.0f, seed);
    size_t n;
    OK(grug_session_generate(session, sampler, NULL, 0, text, len, &n, &err));
    CHECK(n == len);
    grug_sampler_free(sampler);
}

static void forks(const grug_model *model) {
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL), *fork = NULL;
    grug_sampler *sampler = new_sampler(1.0f, 2), *same = NULL;
    uint8_t a[20], b[20];
    float logits[256];
    int i;
    feed(session, "before");
    OK(grug_session_fork(session, &fork, &err));
    CHECK(grug_session_position(fork) == 6);
    feed(fork, "other");
    CHECK(grug_session_position(session) == 6);
    OK(grug_session_rewind(fork, 5, &err));
    text_of(session, 1, a, sizeof a);
    grug_session_free(session);
    text_of(fork, 1, b, sizeof b);
    CHECK(memcmp(a, b, sizeof a) == 0);

    logits_of(fork, logits);
    CHECK(grug_sampler_pick(sampler, logits, NULL) >= 0);
    OK(grug_sampler_fork(sampler, &same, &err));
    for (i = 0; i < 20; i++) {
        CHECK(grug_sampler_pick(sampler, logits, NULL) == grug_sampler_pick(same, logits, NULL));
    }
    FAILS(GRUG_EINVAL, "out is NULL", grug_session_fork(fork, NULL, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_fork(NULL, &session, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_sampler_fork(sampler, NULL, &err));
    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_fork(NULL, &same, &err));
    grug_sampler_free(sampler);
    grug_sampler_free(same);
    grug_session_free(fork);
}

static void rewinds(const grug_model *model) {
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    float before[256], after[256];
    feed(session, "going");
    logits_of(session, before);
    feed(session, " and back");
    FAILS(GRUG_EREWIND, "15 bytes", grug_session_rewind(session, 15, &err));
    CHECK(grug_session_position(session) == 14);
    OK(grug_session_rewind(session, 9, &err));
    CHECK(grug_session_position(session) == 5);
    logits_of(session, after);
    CHECK(memcmp(before, after, sizeof before) == 0);
    OK(grug_session_rewind(session, 0, &err));
    FAILS(GRUG_EREWIND, "", grug_session_rewind(session, UINT64_MAX, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_rewind(NULL, 0, &err));
    grug_session_free(session);
}

static void saves(const grug_model *model) {
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_session *restored = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_session *other_model;
    grug_model *other = NULL;
    grug_model_info info = { .size = sizeof info };
    uint8_t state[1024], a[20], b[20];
    size_t len = 0, i;

    OK(grug_model_get_info(model, &info, &err));
    CHECK(info.state_bytes <= sizeof state);
    feed(session, "a longer text than the context of the model, so that it slides");
    FAILS(GRUG_ESPACE, "", grug_session_save(session, NULL, &len, &err));
    CHECK(len > 0 && len <= info.state_bytes);
    memset(state, 0xEE, sizeof state);
    OK(grug_session_save(session, state, &len, &err));
    CHECK(state[len] == 0xEE);
    FAILS(GRUG_EINVAL, "len is NULL", grug_session_save(session, state, NULL, &err));

    feed(restored, "something else");
    for (i = 0; i < len; i++) {
        state[i] ^= 1;
        CHECK(grug_session_restore(restored, state, len, NULL) < 0);
        state[i] ^= 1;
        CHECK(grug_session_restore(restored, state, i, NULL) < 0);
    }
    FAILS(GRUG_EFORMAT, "saved session", grug_session_restore(restored, NULL, 0, &err));
    CHECK(grug_session_position(restored) == 14);
    OK(grug_session_restore(restored, state, len, &err));
    CHECK(grug_session_position(restored) == grug_session_position(session));
    text_of(session, 1, a, sizeof a);
    text_of(restored, 1, b, sizeof b);
    CHECK(memcmp(a, b, sizeof a) == 0);

    /* The same weights, but a state of half the context does not fit. */
    {
        grug_session_options options = { .size = sizeof options, .max_context = CONTEXT / 2 };
        grug_session *small = NULL;
        OK(grug_session_new(model, &options, &small, &err));
        FAILS(GRUG_EMISMATCH, "context", grug_session_restore(small, state, len, &err));
        grug_session_free(small);
    }
    /* The end byte is no part of what the model computes: the fingerprint is the same. */
    OK(grug_model_load_file(end_byte_model_path, NULL, &other, &err));
    other_model = new_session(other, GRUG_OVERFLOW_SLIDE, NULL);
    OK(grug_session_restore(other_model, state, len, &err));
    grug_session_free(other_model);
    grug_model_free(other);
    grug_session_free(restored);
    grug_session_free(session);
}

static void embeddings(const grug_model *model) {
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    float a[17], b[17];
    int i, different = 0;
    a[16] = b[16] = 99;
    FAILS(GRUG_EINVAL, "embedding_dim is 16", grug_session_get_embedding(session, a, 17, &err));
    FAILS(GRUG_EINVAL, "out is NULL", grug_session_get_embedding(session, NULL, 16, &err));
    feed(session, "a");
    OK(grug_session_get_embedding(session, a, 16, &err));
    feed(session, "b");
    OK(grug_session_get_embedding(session, b, 16, &err));
    for (i = 0; i < 16; i++) different += a[i] < b[i] || a[i] > b[i];
    CHECK(different > 8 && memcmp(a + 16, b + 16, sizeof *a) == 0);
    grug_session_free(session);
}

static void batches(const grug_model *model) {
    enum { N = 5, STEPS = 40 };
    grug_session *sessions[N], *alone[N], *twice[2];
    grug_sampler *samplers[N], *own[N];
    grug_model *other = NULL;
    int32_t input[N], bytes[N];
    int i, step;
    for (i = 0; i < N; i++) {
        const uint8_t name = (uint8_t)('a' + i);
        sessions[i] = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
        alone[i] = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
        OK(grug_session_feed(sessions[i], &name, 1, &err));
        OK(grug_session_feed(alone[i], &name, 1, &err));
        samplers[i] = i == 2 ? NULL : new_sampler(1.0f, (uint64_t)i);
        own[i] = i == 2 ? NULL : new_sampler(1.0f, (uint64_t)i);
        input[i] = -1;
    }
    for (step = 0; step < STEPS; step++) {
        input[1] = step % 3 == 0 ? 'x' : -1;
        OK(grug_session_next_batch(sessions, samplers, input, N, bytes, &err));
        for (i = 0; i < N; i++) {
            int32_t byte = input[i];
            if (byte >= 0) {
                const uint8_t fed = (uint8_t)byte;
                OK(grug_session_feed(alone[i], &fed, 1, &err));
            } else {
                OK(byte = grug_session_next(alone[i], own[i], &err));
            }
            CHECK(bytes[i] == byte);
            CHECK(grug_session_position(sessions[i]) == (uint64_t)(step + 2));
        }
    }
    /* Greedy, nothing fed. */
    OK(grug_session_next_batch(sessions, NULL, NULL, N, bytes, &err));
    for (i = 0; i < N; i++) CHECK(bytes[i] == grug_session_next(alone[i], NULL, NULL));
    OK(grug_session_next_batch(NULL, NULL, NULL, 0, NULL, &err));

    twice[0] = twice[1] = sessions[0];
    FAILS(GRUG_EBUSY, "session 1", grug_session_next_batch(twice, NULL, NULL, 2, bytes, &err));
    twice[1] = NULL;
    FAILS(GRUG_EINVAL, "NULL", grug_session_next_batch(twice, NULL, NULL, 2, bytes, &err));
    OK(grug_model_load_file(model_path, NULL, &other, &err));
    twice[1] = new_session(other, GRUG_OVERFLOW_SLIDE, NULL);
    FAILS(GRUG_EINVAL, "model", grug_session_next_batch(twice, NULL, NULL, 2, bytes, &err));
    FAILS(GRUG_EINVAL, "bytes is NULL", grug_session_next_batch(sessions, NULL, NULL, N, NULL, &err));
    input[0] = 256;
    FAILS(GRUG_EINVAL, "input[0]", grug_session_next_batch(sessions, NULL, input, N, bytes, &err));
    CHECK(grug_session_position(sessions[0]) == STEPS + 2);

    /* What goes wrong in one session stops no other: the second is full. */
    grug_session_free(twice[1]);
    twice[1] = new_session(model, GRUG_OVERFLOW_ERROR, NULL);
    for (i = 0; i < CONTEXT; i++) feed(twice[1], "x");
    OK(grug_session_next_batch(twice, NULL, NULL, 2, bytes, &err));
    CHECK(bytes[0] >= 0 && bytes[1] == GRUG_EFULL);
    grug_session_free(twice[1]);
    grug_model_free(other);
    for (i = 0; i < N; i++) {
        grug_session_free(sessions[i]);
        grug_session_free(alone[i]);
        grug_sampler_free(samplers[i]);
        grug_sampler_free(own[i]);
    }
}

void test_state(void) {
    grug_model *model = load_model(1);
    forks(model);
    rewinds(model);
    saves(model);
    embeddings(model);
    batches(model);
    grug_model_free(model);
}
