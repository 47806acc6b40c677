#include <grug.h>
#include <stdio.h>

int main(int argc, char **argv) {
    grug_sampler_options warm = { .size = sizeof warm, .temperature = 0.8f, .seed = 1 };
    grug_model *model = NULL; grug_session *session = NULL; grug_sampler *sampler = NULL;
    grug_error err; uint8_t text[400]; size_t n = 0;
    if (grug_model_load_file(argc > 1 ? argv[1] : "model.safetensors", NULL, &model, &err) < 0
        || grug_session_new(model, NULL, &session, &err) < 0 || grug_sampler_new(&warm, &sampler, &err) < 0
        || grug_session_generate(session, sampler, NULL, 0, text, sizeof text, &n, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    fwrite(text, 1, n, stdout);
    grug_sampler_free(sampler); grug_session_free(session); grug_model_free(model);
    return 0;
}
