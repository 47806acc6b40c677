/* Samplers: what each option lets through. */
#include "check.h"

/* Logits with the probabilities 1/2, 1/4, 1/8, 1/16, ... for the bytes 'a', 'b', 'c', ...; nothing else. */
static void falling(float logits[256]) {
    int i;
    for (i = 0; i < 256; i++) logits[i] = -INFINITY;
    for (i = 0; i < 8; i++) logits['a' + i] = -(float)i * logf(2.0f);
}

/* Draws often and counts. */
static void draw(grug_sampler_options options, int counts[256]) {
    grug_sampler *sampler = NULL;
    float logits[256];
    int i;
    falling(logits);
    memset(counts, 0, 256 * sizeof *counts);
    options.size = sizeof options;
    OK(grug_sampler_new(&options, &sampler, &err));
    for (i = 0; i < 2000; i++) {
        int32_t byte;
        OK(byte = grug_sampler_pick(sampler, logits, &err));
        CHECK(byte >= 'a' && byte < 'a' + 8);
        counts[byte]++;
    }
    grug_sampler_free(sampler);
}

/* The options that look at more than the logits of one byte. */
static void more_options(void) {
    static float bias[256];
    grug_sampler_options options = { .temperature = 1 };
    grug_sampler *sampler = NULL;
    float logits[256];
    int counts[256], i;

    bias['a'] = -INFINITY;
    bias['b'] = logf(2.0f); /* as likely as 'a' was */
    options.bias = bias;
    draw(options, counts);
    CHECK(counts['a'] == 0 && counts['b'] > 900 && counts['b'] < 1600);
    options.bias = NULL;

    /* The entropy is about 1.97 bits: the byte with a surprise of 2 is the typical one. */
    options.typical_p = 0.2f;
    draw(options, counts);
    CHECK(counts['b'] == 2000);
    options.typical_p = 0;

    /* A low surprise: only the likeliest bytes are left. */
    options.mirostat_tau = 0.5f;
    draw(options, counts);
    CHECK(counts['a'] > 1200);
    options.mirostat_tau = 0;

    /* Greedy, but what was picked is penalized, until it leaves the window. */
    options.size = sizeof options;
    options.temperature = 0;
    options.penalty_window = 2;
    options.presence_penalty = 10;
    OK(grug_sampler_new(&options, &sampler, &err));
    falling(logits);
    for (i = 0; i < 30; i++) CHECK(grug_sampler_pick(sampler, logits, NULL) == 'a' + i % 3);
    grug_sampler_free(sampler);
    options.presence_penalty = 0;
    options.penalty_window = 100;
    options.frequency_penalty = 0.7f; /* a little more than ln 2: as 'b' after one 'a' */
    OK(grug_sampler_new(&options, &sampler, &err));
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 'a' && grug_sampler_pick(sampler, logits, NULL) == 'b');
    grug_sampler_free(sampler);
    options.frequency_penalty = 0;
    options.repeat_penalty = 2; /* multiplies negative logits */
    for (i = 0; i < 8; i++) logits['a' + i] -= 1;
    OK(grug_sampler_new(&options, &sampler, &err));
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 'a' && grug_sampler_pick(sampler, logits, NULL) == 'b');
    grug_sampler_free(sampler);

    /* Half a character is not left alone: after 0xC3 comes what continues it, however unlikely. */
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.flags = GRUG_SAMPLE_UTF8;
    OK(grug_sampler_new(&options, &sampler, &err));
    for (i = 0; i < 256; i++) logits[i] = -(float)i;
    logits[0xC3] = 1;
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 0xC3);
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 0x80);
    logits[0xC3] = -1000;
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 0);
    grug_sampler_free(sampler);
}

void test_sampler(void) {
    grug_sampler_options options;
    grug_sampler *sampler = NULL;
    float logits[256];
    int counts[256], again[256], i;
    falling(logits);

    FAILS(GRUG_EINVAL, "out is NULL", grug_sampler_new(NULL, NULL, &err));
    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_pick(NULL, logits, &err));
    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_reset(NULL, 0, &err));
    OK(grug_sampler_new(NULL, &sampler, &err));
    FAILS(GRUG_EINVAL, "logits is NULL", grug_sampler_pick(sampler, NULL, &err));
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 'a');
    logits['a'] = -INFINITY;
    CHECK(grug_sampler_pick(sampler, logits, NULL) == 'b');
    for (i = 0; i < 256; i++) logits[i] = -INFINITY;
    FAILS(GRUG_EDEADEND, "", grug_sampler_pick(sampler, logits, &err));
    logits[3] = NAN;
    FAILS(GRUG_EINVAL, "", grug_sampler_pick(sampler, logits, &err));
    grug_sampler_free(sampler);

    memset(&options, 0, sizeof options);
    options.temperature = 1;
    draw(options, counts);
    CHECK(abs(counts['a'] - 1004) < 150 && abs(counts['b'] - 502) < 130 && counts['g'] > 0);
    draw(options, again);
    CHECK(memcmp(counts, again, sizeof counts) == 0);
    options.seed = 1;
    draw(options, again);
    CHECK(memcmp(counts, again, sizeof counts) != 0);

    options.top_k = 2;
    draw(options, counts);
    CHECK(counts['a'] > 0 && counts['b'] > 0 && counts['a'] + counts['b'] == 2000);
    options.top_k = 0;
    options.top_p = 0.8f;
    draw(options, counts);
    CHECK(counts['c'] > 0 && counts['a'] + counts['b'] + counts['c'] == 2000);
    options.top_p = 0;
    options.min_p = 0.2f;
    draw(options, counts);
    CHECK(counts['c'] > 0 && counts['a'] + counts['b'] + counts['c'] == 2000);
    options.min_p = 0;
    options.temperature = 0.01f;
    draw(options, counts);
    CHECK(counts['a'] == 2000);

    more_options();
}
