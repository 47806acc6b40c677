/* Compression: what goes in comes out, on any number of threads, and what was changed is refused. */
#include "check.h"

enum { LEN = 240 };

static grug_model *portable(uint32_t n_threads) {
    grug_model_options options = { .size = sizeof options, .flags = GRUG_MODEL_PORTABLE, .n_threads = n_threads };
    grug_model *model = NULL;
    OK(grug_model_load_file(model_path, &options, &model, &err));
    return model;
}

void test_compress(void) {
    grug_model *one = portable(1), *three = portable(3), *ordinary = load_model(1);
    grug_session_options shorter = { .size = sizeof shorter, .max_context = CONTEXT / 2 }, stopped = shorter;
    grug_session *session = new_session(one, GRUG_OVERFLOW_SLIDE, NULL);
    uint8_t text[LEN], out[LEN], archive[GRUG_COMPRESS_BOUND(LEN)], again[GRUG_COMPRESS_BOUND(LEN)];
    size_t n = 0, len, archive_len, i;

    /* What the model itself is likely to write is what it compresses. */
    OK(grug_session_generate(session, NULL, NULL, 0, text, LEN, &n, &err));
    grug_session_free(session);
    CHECK(n == LEN);

    len = sizeof archive;
    FAILS(GRUG_EUNSUPPORTED, "portable", grug_compress(ordinary, NULL, text, LEN, archive, &len, &err));
    CHECK(len == sizeof archive);
    FAILS(GRUG_EINVAL, "m is NULL", grug_compress(NULL, NULL, text, LEN, archive, &len, &err));
    FAILS(GRUG_EINVAL, "src is NULL", grug_compress(one, NULL, NULL, LEN, archive, &len, &err));
    FAILS(GRUG_EINVAL, "dst is NULL", grug_compress(one, NULL, text, LEN, NULL, &len, &err));
    FAILS(GRUG_EINVAL, "len is NULL", grug_compress(one, NULL, text, LEN, archive, NULL, &err));
    OK(grug_compress(one, NULL, text, LEN, archive, &len, &err));
    archive_len = len;
    CHECK(archive_len < LEN * 3 / 4);

    /* The same archive from any number of threads, and with exactly the room that it takes. */
    len = 0;
    FAILS(GRUG_ESPACE, "dst needs", grug_compress(three, NULL, text, LEN, NULL, &len, &err));
    CHECK(len == archive_len);
    OK(grug_compress(three, NULL, text, LEN, again, &len, &err));
    CHECK(len == archive_len && memcmp(archive, again, len) == 0);

    len = 0;
    FAILS(GRUG_ESPACE, "dst needs 240 bytes, not 0", grug_decompress(one, NULL, archive, archive_len, NULL, &len, &err));
    CHECK(len == LEN);
    OK(grug_decompress(three, NULL, archive, archive_len, out, &len, &err));
    CHECK(len == LEN && memcmp(text, out, LEN) == 0);

    /* A shorter context is in the archive: decoding needs no option. */
    len = sizeof again;
    OK(grug_compress(one, &shorter, text, LEN, again, &len, &err));
    n = LEN;
    memset(out, 0, LEN);
    OK(grug_decompress(one, NULL, again, len, out, &n, &err));
    CHECK(n == LEN && memcmp(text, out, LEN) == 0);

    /* What does not get smaller stays within the bound; nothing is something too. */
    for (i = 0; i < LEN; i++) text[i] = (uint8_t)(i * 167 + i / 7 * 59);
    len = sizeof again;
    OK(grug_compress(one, NULL, text, LEN, again, &len, &err));
    n = LEN;
    OK(grug_decompress(one, NULL, again, len, out, &n, &err));
    CHECK(n == LEN && memcmp(text, out, LEN) == 0);
    len = GRUG_COMPRESS_BOUND(0);
    OK(grug_compress(one, NULL, NULL, 0, again, &len, &err));
    n = 0;
    OK(grug_decompress(one, NULL, again, len, NULL, &n, &err));
    CHECK(n == 0);

    /* No change of an archive gives other bytes than those that went in. */
    n = LEN;
    FAILS(GRUG_EFORMAT, "GRUGARCH", grug_decompress(one, NULL, NULL, 0, out, &n, &err));
    for (i = 0; i < 60; i += 5) {
        size_t room = sizeof out;
        archive[i] ^= 0x10;
        CHECK(grug_decompress(one, NULL, archive, archive_len, out, &room, NULL) < 0);
        archive[i] ^= 0x10;
        room = sizeof out;
        CHECK(grug_decompress(one, NULL, archive, archive_len - 1 - i / 4, out, &room, NULL) < 0);
    }
    archive[16] ^= 1;
    n = LEN;
    FAILS(GRUG_EMISMATCH, "model", grug_decompress(one, NULL, archive, archive_len, out, &n, &err));
    archive[16] ^= 1;
    /* An archive may promise any length; that alone costs nothing. */
    memset(archive + 32, 0x7F, 8);
    n = LEN;
    FAILS(GRUG_ESPACE, "dst needs", grug_decompress(one, NULL, archive, archive_len, out, &n, &err));

    {
        grug_cancel *cancel = grug_cancel_new();
        stopped.cancel = cancel;
        grug_cancel_trigger(cancel);
        len = sizeof again;
        FAILS(GRUG_ECANCELED, "cancel", grug_compress(one, &stopped, text, LEN, again, &len, &err));
        CHECK(len == sizeof again);
        grug_cancel_free(cancel);
    }
    grug_model_free(one);
    grug_model_free(three);
    grug_model_free(ordinary);
}
