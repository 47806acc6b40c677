/* Threads: one model for many sessions at once, and a handle that two threads want. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

enum { N_THREADS = 4, BYTES = 2 * CONTEXT };

typedef struct job {
    const grug_model *model;
    uint8_t text[BYTES];
} job;

static void *generate_alone(void *argument) {
    job *j = argument;
    grug_session *session = new_session(j->model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_sampler *sampler = new_sampler(1.0f, 5);
    size_t n;
    OK(grug_session_generate(session, sampler, NULL, 0, j->text, BYTES, &n, &err));
    grug_sampler_free(sampler);
    grug_session_free(session);
    return NULL;
}

static void many_sessions(uint32_t n_threads) {
    grug_model *model = load_model(n_threads);
    pthread_t threads[N_THREADS];
    job jobs[N_THREADS + 1];
    int i;
    for (i = 0; i <= N_THREADS; i++) jobs[i].model = model;
    generate_alone(&jobs[N_THREADS]);
    for (i = 0; i < N_THREADS; i++) CHECK(pthread_create(&threads[i], NULL, generate_alone, &jobs[i]) == 0);
    for (i = 0; i < N_THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(memcmp(jobs[i].text, jobs[N_THREADS].text, BYTES) == 0);
    }
    grug_model_free(model);
}

typedef struct endless {
    grug_session *session;
    grug_sampler *sampler;
    uint8_t *buf;
    size_t cap, n;
    int32_t status;
} endless;

static void *generate_endlessly(void *argument) {
    endless *e = argument;
    do { /* until the other thread lets go of both */
        e->status = grug_session_generate(e->session, e->sampler, NULL, 0, e->buf, e->cap, &e->n, NULL);
    } while (e->status == GRUG_EBUSY);
    return NULL;
}

/* While one thread generates without end, another finds session and sampler busy, stops it, and has them again. */
static void busy(void) {
    static const uint8_t byte = 'x';
    grug_model *model = load_model(1);
    grug_cancel *cancel = grug_cancel_new();
    endless e;
    pthread_t thread;
    int32_t status, picked;
    uint64_t fed = 0, position;
    float logits[256] = { 0 };
    grug_session *other = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);

    memset(&e, 0, sizeof e);
    e.session = new_session(model, GRUG_OVERFLOW_SLIDE, cancel);
    e.sampler = new_sampler(1.0f, 0);
    e.cap = (size_t)1 << 26;
    e.buf = malloc(e.cap);
    CHECK(e.buf != NULL);
    CHECK(pthread_create(&thread, NULL, generate_endlessly, &e) == 0);
    do {
        grug_error err;
        status = grug_session_feed(e.session, &byte, 1, &err);
        CHECK(status == GRUG_OK || status == GRUG_EBUSY);
        fed += status == GRUG_OK;
    } while (status != GRUG_EBUSY);
    /* The other thread holds the session, and soon the sampler. */
    do {
        picked = grug_sampler_pick(e.sampler, logits, NULL);
        CHECK(picked >= 0 || picked == GRUG_EBUSY);
    } while (picked != GRUG_EBUSY);
    FAILS(GRUG_EBUSY, "session", grug_session_next(e.session, NULL, &err));
    FAILS(GRUG_EBUSY, "session", grug_session_reset(e.session, &err));
    FAILS(GRUG_EBUSY, "session", grug_session_get_logits(e.session, logits, &err));
    FAILS(GRUG_EBUSY, "sampler", grug_sampler_reset(e.sampler, 0, &err));
    FAILS(GRUG_EBUSY, "sampler", grug_session_next(other, e.sampler, &err));
    /* Asking for the position needs no turn. */
    position = grug_session_position(e.session);
    CHECK(position == fed);

    grug_cancel_trigger(cancel);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(e.status == GRUG_ECANCELED);
    CHECK(grug_session_position(e.session) == fed + e.n);
    grug_cancel_reset(cancel);
    OK(grug_session_next(e.session, e.sampler, &err));
    OK(grug_session_next(other, e.sampler, &err));

    free(e.buf);
    grug_sampler_free(e.sampler);
    grug_session_free(other);
    grug_session_free(e.session);
    grug_cancel_free(cancel);
    grug_model_free(model);
}

/* How many threads this process has whose name begins so; -1 where the system does not say. */
static int named(const char *begin) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int n = 0;
    if (tasks == NULL) return -1;
    while ((task = readdir(tasks)) != NULL) {
        char path[300], name[64] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        if ((file = fopen(path, "r")) == NULL) continue;
        if (fgets(name, sizeof name, file) != NULL) n += strncmp(name, begin, strlen(begin)) == 0;
        fclose(file);
    }
    closedir(tasks);
    return n;
}

/* The workers of a model have names, and are gone when its last handle is. */
static void workers(void) {
    grug_model *model;
    grug_session *session;
    if (named("") < 1) return;
    CHECK_SOON(named("grug-") == 0);
    model = load_model(1);
    CHECK(named("grug-") == 0);
    grug_model_free(model);
    model = load_model(4);
    CHECK(named("grug-") == 3 && named("grug-3") == 1);
    session = new_session(model, GRUG_OVERFLOW_SLIDE, NULL);
    grug_model_free(model);
    CHECK(named("grug-") == 3);
    feed(session, "still there");
    grug_session_free(session);
    CHECK_SOON(named("grug-") == 0);
}

void test_threads(void) {
    workers();
    many_sessions(1);
    many_sessions(3);
    busy();
}
