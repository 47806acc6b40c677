/* The test program of the C API: capi MODEL MODEL_WITH_END_BYTE. */
#include "check.h"

const char *model_path, *end_byte_model_path;

grug_model *load_model(uint32_t n_threads) {
    grug_model_options options = { .size = sizeof options, .n_threads = n_threads };
    grug_model *model = NULL;
    OK(grug_model_load_file(model_path, &options, &model, &err));
    CHECK(model != NULL);
    return model;
}

grug_session *new_session(const grug_model *model, uint32_t overflow, const grug_cancel *cancel) {
    grug_session_options options = { .size = sizeof options, .overflow = overflow, .cancel = cancel };
    grug_session *session = NULL;
    OK(grug_session_new(model, &options, &session, &err));
    CHECK(session != NULL);
    return session;
}

grug_sampler *new_sampler(float temperature, uint64_t seed) {
    grug_sampler_options options = { .size = sizeof options, .temperature = temperature, .seed = seed };
    grug_sampler *sampler = NULL;
    OK(grug_sampler_new(&options, &sampler, &err));
    CHECK(sampler != NULL);
    return sampler;
}

void feed(grug_session *session, const char *text) {
    OK(grug_session_feed(session, (const uint8_t *)text, strlen(text), &err));
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    model_path = argv[1];
    end_byte_model_path = argv[2];
    test_library();
    test_options();
    test_model();
    test_session();
    test_state();
    test_sampler();
    test_cancel();
    test_threads();
    test_grammar();
    test_compress();
    test_hooks();
    test_null();
#ifndef WITHOUT_FORK /* for tools that cannot follow a child which starts threads */
    test_fork();
#endif
    puts("C API: all passed");
    return 0;
}
