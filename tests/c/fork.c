/* fork(): a child may use what one thread computes, is told so elsewhere, and never hangs. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 40 };

static void text_of(grug_session *session, uint8_t text[BYTES]) {
    size_t n = 0;
    OK(grug_session_generate(session, NULL, NULL, 0, text, BYTES, &n, &err));
    CHECK(n == BYTES);
}

/* What the child does with the handles of its parent; it writes the text of the second model to the pipe. */
static void in_child(grug_model *alone, grug_session *quiet, grug_model *many, grug_session *busy,
    grug_session *asked, int pipe_end) {
    uint8_t text[BYTES], own[BYTES];
    grug_session *session = NULL;
    grug_model *model;
    double total;
    text_of(quiet, text);
    OK(grug_session_new(alone, NULL, &session, &err));
    feed(session, "fork");
    text_of(session, own);
    CHECK(memcmp(text, own, BYTES) == 0);
    grug_session_free(session);

    FAILS(GRUG_EFORK, "fork", grug_session_feed(busy, own, 1, &err));
    CHECK(grug_session_position(busy) == 4);
    OK(grug_session_new(many, NULL, &session, &err));
    FAILS(GRUG_EFORK, "fork", grug_session_feed(session, own, 1, &err));
    grug_session_free(session);
    FAILS(GRUG_EFORK, "fork", grug_session_score(asked, own, 1, NULL, &total, &err));
    CHECK(grug_session_position(asked) == 4);
    grug_session_free(asked);
    grug_session_free(busy);
    grug_session_free(quiet);
    grug_model_free(many);
    grug_model_free(alone);

    /* What the child loads has threads of its own. */
    model = load_model(3);
    session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    feed(session, "fork");
    text_of(session, own);
    CHECK(memcmp(text, own, BYTES) == 0);
    grug_session_free(session);
    grug_model_free(model);
    CHECK(write(pipe_end, text, BYTES) == BYTES);
}

void test_fork(void) {
    grug_model *alone = load_model(1), *many = load_model(3);
    grug_session *quiet = new_session(alone, GRUG_OVERFLOW_SLIDE, NULL);
    grug_session *busy = new_session(many, GRUG_OVERFLOW_SLIDE, NULL);
    grug_session *asked = new_session(many, GRUG_OVERFLOW_SLIDE, NULL);
    uint8_t text[BYTES], from_child[BYTES];
    float logits[256];
    int ends[2];
    pid_t child;
    feed(quiet, "fork");
    feed(busy, "fork");
    feed(asked, "fork");
    OK(grug_session_get_logits(asked, logits, &err));
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_child(alone, quiet, many, busy, asked, ends[1]);
        _exit(0);
    }
    CHECK(close(ends[1]) == 0);
    /* The parent goes on. */
    text_of(busy, text);
    CHECK(read(ends[0], from_child, BYTES) == BYTES && memcmp(text, from_child, BYTES) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(close(ends[0]) == 0);
    grug_session_free(quiet);
    grug_session_free(busy);
    grug_session_free(asked);
    grug_model_free(alone);
    grug_model_free(many);
}
