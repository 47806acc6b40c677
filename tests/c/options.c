/* Structs that say their size: too small, too large, newer than the library, and fields that are refused. */
#include "check.h"

/* Options as a program might have them that was compiled against a newer header. */
typedef struct newer_sampler_options {
    grug_sampler_options known;
    uint64_t unknown[3];
} newer_sampler_options;

static void sizes(void) {
    grug_sampler *sampler = (grug_sampler *)&sampler; /* a value no call may touch */
    grug_sampler *const untouched = sampler;
    grug_sampler_options options;
    newer_sampler_options newer;

    memset(&options, 0, sizeof options);
    FAILS(GRUG_EINVAL, "grug_sampler_options.size is 0", grug_sampler_new(&options, &sampler, &err));
    options.size = sizeof options - 8;
    FAILS(GRUG_EINVAL, "sizeof(grug_sampler_options)", grug_sampler_new(&options, &sampler, &err));
    options.size = (size_t)-1;
    FAILS(GRUG_EINVAL, "sizeof(grug_sampler_options)", grug_sampler_new(&options, &sampler, &err));

    memset(&newer, 0, sizeof newer);
    newer.known.size = sizeof newer;
    newer.unknown[2] = 1;
    FAILS(GRUG_EVERSION, "grug_sampler_options", grug_sampler_new(&newer.known, &sampler, &err));
    CHECK(sampler == untouched);
    newer.unknown[2] = 0;
    OK(grug_sampler_new(&newer.known, &sampler, &err));
    CHECK(sampler != untouched);
    grug_sampler_free(sampler);
}

/* An out struct: nothing is written beyond the size that the caller has. */
static void out_sizes(void) {
    struct {
        grug_model_info info;
        uint8_t tail[16];
    } out;
    grug_model *model = load_model(1);
    size_t i;

    memset(&out, 0xAA, sizeof out);
    FAILS(GRUG_EINVAL, "grug_model_info.size", grug_model_get_info(model, &out.info, &err));
    CHECK(out.info.n_params == 0xAAAAAAAAAAAAAAAAu);

    out.info.size = sizeof out.info;
    OK(grug_model_get_info(model, &out.info, &err));
    CHECK(out.info.size == sizeof out.info && out.info.n_params > 0 && out.info.context_bytes == CONTEXT);
    for (i = 0; i < sizeof out.tail; i++) CHECK(out.tail[i] == 0xAA);

    out.info.size = sizeof out;
    OK(grug_model_get_info(model, &out.info, &err));
    for (i = 0; i < sizeof out.tail; i++) CHECK(out.tail[i] == 0);
    CHECK(out.info.size == sizeof out);
    grug_model_free(model);
}

static void refused_model_options(void) {
    grug_model_options options = { .size = sizeof options };
    grug_model *model = NULL;
    options.device = "cuda:7";
    FAILS(GRUG_EDEVICE, "cuda:7", grug_model_load_file(model_path, &options, &model, &err));
    options.device = "\xff";
    FAILS(GRUG_EINVAL, "grug_model_options.device", grug_model_load_file(model_path, &options, &model, &err));
    options.device = "gpu";
    FAILS(GRUG_EDEVICE, "must be \"auto\"", grug_model_load_file(model_path, &options, &model, &err));
    options.device = NULL;
    options.flags = 0x80000000u;
    FAILS(GRUG_EINVAL, "grug_model_options.flags", grug_model_load_file(model_path, &options, &model, &err));
    CHECK(model == NULL);
}

static void refused_session_options(void) {
    grug_session_options options = { .size = sizeof options };
    grug_model *model = load_model(1);
    grug_session *session = NULL;
    options.overflow = 2;
    FAILS(GRUG_EINVAL, "grug_session_options.overflow", grug_session_new(model, &options, &session, &err));
    options.overflow = 0;
    options.flags = 2;
    FAILS(GRUG_EINVAL, "grug_session_options.flags", grug_session_new(model, &options, &session, &err));
    options.flags = 0;
    options.max_context = UINT64_MAX;
    FAILS(GRUG_EINVAL, "max_context", grug_session_new(model, &options, &session, &err));
    CHECK(session == NULL);
    grug_model_free(model);
}

static void refused_sampler_options(void) {
    static float bias[256];
    grug_sampler_options base = { .size = sizeof base, .temperature = 1 }, options;
    grug_sampler *sampler = NULL;
#define REFUSED(status, field, value)                                                   \
    do {                                                                                \
        options = base;                                                                 \
        options.field = (value);                                                        \
        FAILS(status, #field, grug_sampler_new(&options, &sampler, &err));              \
    } while (0)
    REFUSED(GRUG_EINVAL, temperature, -1.0f);
    REFUSED(GRUG_EINVAL, temperature, (float)NAN);
    REFUSED(GRUG_EINVAL, top_p, 1.5f);
    REFUSED(GRUG_EINVAL, min_p, -0.5f);
    REFUSED(GRUG_EINVAL, typical_p, 1.5f);
    REFUSED(GRUG_EINVAL, penalty_window, (1u << 20) + 1);
    REFUSED(GRUG_EINVAL, repeat_penalty, -0.1f);
    REFUSED(GRUG_EINVAL, frequency_penalty, (float)INFINITY);
    REFUSED(GRUG_EINVAL, presence_penalty, (float)NAN);
    REFUSED(GRUG_EINVAL, mirostat_tau, -3.0f);
    REFUSED(GRUG_EINVAL, mirostat_eta, -0.1f);
    REFUSED(GRUG_EINVAL, flags, 2);
    bias[7] = (float)INFINITY;
    REFUSED(GRUG_EINVAL, bias, bias);
    CHECK(sampler == NULL);
}

void test_options(void) {
    sizes();
    out_sizes();
    refused_model_options();
    refused_session_options();
    refused_sampler_options();
}
