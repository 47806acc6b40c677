/* The list of functions. */
#include "addon.h"

static napi_value init(napi_env env, napi_value exports) {
    static const struct {
        const char *name;
        napi_callback call;
    } FUNCTIONS[] = {
        { "version", version }, { "devices", devices }, { "close", close_handle }, { "logNew", log_new }, { "logTake", log_take },
        { "logProgress", log_get_progress },
        { "cancelNew", cancel_new }, { "cancelTrigger", cancel_trigger }, { "cancelReset", cancel_reset },
        { "modelLoad", model_load }, { "modelInfo", model_info }, { "modelMetadata", model_metadata },
        { "modelCompress", model_compress }, { "modelDecompress", model_decompress },
        { "sessionNew", session_new }, { "sessionFork", session_fork }, { "sessionReset", session_reset },
        { "sessionPosition", session_position }, { "sessionFeed", session_feed },
        { "sessionGenerate", session_generate }, { "sessionScore", session_score },
        { "sessionLogits", session_logits }, { "sessionEmbedding", session_embedding },
        { "sessionNextBatch", session_next_batch }, { "sessionRewind", session_rewind },
        { "sessionSave", session_save }, { "sessionRestore", session_restore },
        { "grammarNew", grammar_new }, { "samplerNew", sampler_new }, { "samplerFork", sampler_fork },
        { "samplerReset", sampler_reset }, { "samplerPick", sampler_pick }, { "samplerAccept", sampler_accept },
        { "samplerAllowed", sampler_allowed },
    };
    size_t i;
    for (i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        napi_value function;
        napi_create_function(env, FUNCTIONS[i].name, NAPI_AUTO_LENGTH, FUNCTIONS[i].call, NULL, &function);
        napi_set_named_property(env, exports, FUNCTIONS[i].name, function);
    }
    return exports;
}

NAPI_MODULE(grug, init)
