/* NULL where something has to be is an error that names it, in the functions that the other files do not ask; and what
 * takes NULL. */
#include "check.h"

void test_null(void) {
    grug_model *model = load_model(1);
    grug_session *session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    uint8_t bytes[64];
    float numbers[16];
    size_t len = sizeof bytes;

    FAILS(GRUG_EINVAL, "m is NULL", grug_model_get_metadata(NULL, "note", (char *)bytes, &len, &err));
    FAILS(GRUG_EINVAL, "m is NULL", grug_model_get_metadata_key(NULL, 0, (char *)bytes, &len, &err));
    FAILS(GRUG_EINVAL, "len is NULL", grug_model_get_metadata_key(model, 0, (char *)bytes, NULL, &err));
    FAILS(GRUG_EINVAL, "key is NULL", grug_model_get_metadata_key(model, 0, NULL, &len, &err));
    FAILS(GRUG_EINVAL, "sampler is NULL", grug_sampler_accept(NULL, 0, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_set_cancel(NULL, NULL, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_get_embedding(NULL, numbers, 16, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_save(NULL, bytes, &len, &err));
    FAILS(GRUG_EINVAL, "buf is NULL", grug_session_save(session, NULL, &len, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_restore(NULL, bytes, 1, &err));
    FAILS(GRUG_EINVAL, "buf is NULL", grug_session_restore(session, NULL, 1, &err));
    FAILS(GRUG_EINVAL, "s is NULL", grug_session_next_batch(NULL, NULL, NULL, 1, (int32_t *)(void *)numbers, &err));
    FAILS(GRUG_EINVAL, "m is NULL", grug_compress(NULL, NULL, bytes, 1, bytes, &len, &err));
    FAILS(GRUG_EINVAL, "src is NULL", grug_compress(model, NULL, NULL, 1, bytes, &len, &err));
    FAILS(GRUG_EINVAL, "dst is NULL", grug_compress(model, NULL, bytes, 1, NULL, &len, &err));
    FAILS(GRUG_EINVAL, "len is NULL", grug_compress(model, NULL, bytes, 1, bytes, NULL, &err));
    FAILS(GRUG_EINVAL, "m is NULL", grug_decompress(NULL, NULL, bytes, 1, bytes, &len, &err));
    FAILS(GRUG_EINVAL, "src is NULL", grug_decompress(model, NULL, NULL, 1, bytes, &len, &err));
    FAILS(GRUG_EINVAL, "dst is NULL", grug_decompress(model, NULL, bytes, 1, NULL, &len, &err));
    FAILS(GRUG_EINVAL, "len is NULL", grug_decompress(model, NULL, bytes, 1, bytes, NULL, &err));
    CHECK(len == sizeof bytes);

    /* The error itself. */
    CHECK(grug_session_feed(NULL, bytes, 1, NULL) == GRUG_EINVAL);
    CHECK(grug_model_get_info(model, NULL, NULL) == GRUG_EINVAL);

    /* No-ops. */
    grug_model_free(NULL);
    grug_session_free(NULL);
    grug_sampler_free(NULL);
    grug_grammar_free(NULL);
    grug_cancel_free(NULL);
    grug_cancel_trigger(NULL);
    grug_cancel_reset(NULL);
    CHECK(grug_session_position(NULL) == 0);
    OK(grug_session_set_cancel(session, NULL, &err));
    OK(grug_session_feed(session, NULL, 0, &err));
    OK(grug_session_next_batch(NULL, NULL, NULL, 0, NULL, &err));

    grug_session_free(session);
    grug_model_free(model);
}
