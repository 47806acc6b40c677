/* Cancellation: before a call, between calls, and from a signal handler in the middle of one. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <signal.h>
#include <sys/time.h>

static grug_cancel *from_signal;

static void on_alarm(int signal_number) {
    (void)signal_number;
    grug_cancel_trigger(from_signal);
}

void test_cancel(void) {
    grug_cancel *cancel = grug_cancel_new();
    grug_model_options options = { .size = sizeof options };
    grug_model *model = NULL;
    grug_session *session;
    uint8_t buf[64];
    size_t n = 99, cap = (size_t)1 << 24;
    uint8_t *large;
    double total = -1;
    struct itimerval soon = { { 0, 0 }, { 0, 20000 } };

    CHECK(cancel != NULL);
    grug_cancel_trigger(cancel);
    options.cancel = cancel;
    FAILS(GRUG_ECANCELED, "cancel", grug_model_load_file(model_path, &options, &model, &err));
    CHECK(model == NULL);
    grug_cancel_reset(cancel);
    OK(grug_model_load_file(model_path, &options, &model, &err));

    session = new_session(model, GRUG_OVERFLOW_SLIDE, cancel);
    feed(session, "ab");
    grug_cancel_trigger(cancel);
    FAILS(GRUG_ECANCELED, "cancel", grug_session_feed(session, buf, 1, &err));
    FAILS(GRUG_ECANCELED, "cancel", grug_session_next(session, NULL, &err));
    FAILS(GRUG_ECANCELED, "cancel", grug_session_generate(session, NULL, NULL, 0, buf, 64, &n, &err));
    FAILS(GRUG_ECANCELED, "cancel", grug_session_score(session, buf, 1, NULL, &total, &err));
    CHECK(n == 0 && total == -1 && grug_session_position(session) == 2);
    grug_cancel_reset(cancel);
    OK(grug_session_generate(session, NULL, NULL, 0, buf, 64, &n, &err));
    CHECK(n == 64 && grug_session_position(session) == 66);

    /* A fork has the token of its origin, until it gets another one or none. */
    {
        grug_session *fork = NULL;
        grug_cancel *own = grug_cancel_new();
        OK(grug_session_fork(session, &fork, &err));
        grug_cancel_trigger(cancel);
        FAILS(GRUG_ECANCELED, "cancel", grug_session_next(fork, NULL, &err));
        OK(grug_session_set_cancel(fork, own, &err));
        CHECK(grug_session_next(fork, NULL, NULL) >= 0);
        grug_cancel_reset(cancel);
        grug_cancel_trigger(own);
        FAILS(GRUG_ECANCELED, "cancel", grug_session_next(fork, NULL, &err));
        CHECK(grug_session_next(session, NULL, NULL) >= 0);
        OK(grug_session_set_cancel(fork, NULL, &err));
        grug_cancel_free(own);
        CHECK(grug_session_next(fork, NULL, NULL) >= 0);
        FAILS(GRUG_EINVAL, "s is NULL", grug_session_set_cancel(NULL, cancel, &err));
        grug_session_free(fork);
    }

    /* The handle may go while a session uses the token. */
    grug_cancel_trigger(cancel);
    grug_cancel_free(cancel);
    FAILS(GRUG_ECANCELED, "cancel", grug_session_feed(session, buf, 1, &err));
    grug_session_free(session);

    /* A call that would take very long ends soon after the signal, and what it wrote is kept. */
    from_signal = grug_cancel_new();
    session = new_session(model, GRUG_OVERFLOW_SLIDE, from_signal);
    large = malloc(cap);
    CHECK(large != NULL);
    CHECK(signal(SIGALRM, on_alarm) != SIG_ERR && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    FAILS(GRUG_ECANCELED, "cancel", grug_session_generate(session, NULL, NULL, 0, large, cap, &n, &err));
    CHECK(n < cap && grug_session_position(session) == n);
    signal(SIGALRM, SIG_DFL);
    free(large);
    grug_session_free(session);
    grug_cancel_free(from_signal);
    grug_model_free(model);
}
