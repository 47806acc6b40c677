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
}
