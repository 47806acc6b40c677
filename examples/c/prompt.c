/* prompt: talk with a model. What you type is fed, and the model goes on from there; everything stays in its context.
 * Ctrl-C stops what it is writing, and at the prompt it ends the program.
 *
 *   cargo build --release
 *   cc -O2 -Iinclude examples/c/prompt.c -Ltarget/release -lgrug -Wl,-rpath,$PWD/target/release -o prompt
 *   ./prompt model.safetensors 300 */
#define _POSIX_C_SOURCE 200809L
#include <grug.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static grug_cancel *cancel;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    grug_cancel_trigger(cancel); /* one atomic store, so a signal handler may do it */
}

/* Writes up to `bytes` bytes, or until an empty line, or until Ctrl-C. */
static grug_status answer(grug_session *session, grug_sampler *sampler, unsigned long bytes, grug_error *err) {
    const grug_bytes stop = { (const uint8_t *)"\n\n", 2 };
    grug_status status = GRUG_STOP_CAPACITY;
    uint8_t byte;
    size_t n;
    for (; bytes > 0 && status == GRUG_STOP_CAPACITY; bytes--) {
        status = grug_session_generate(session, sampler, &stop, 1, &byte, 1, &n, err);
        fwrite(&byte, 1, n, stdout);
        fflush(stdout);
    }
    return status;
}

int main(int argc, char **argv) {
    grug_model_options loading = { .size = sizeof loading };
    grug_session_options options = { .size = sizeof options };
    grug_sampler_options warm = { .size = sizeof warm, .temperature = 0.8f, .flags = GRUG_SAMPLE_UTF8 };
    uint64_t seed = 0;
    const unsigned long bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 300;
    struct sigaction action;
    grug_model *model = NULL;
    grug_session *session = NULL;
    grug_sampler *sampler = NULL;
    grug_error err;
    grug_status status;
    char line[4096];

    if (argc < 2 || argv[1][0] == '-')
        return fputs("usage: prompt MODEL [BYTES]\n  BYTES  the longest answer (300)\n", stderr), 2;
    if ((cancel = grug_cancel_new()) == NULL) return fputs("prompt: out of memory\n", stderr), 1;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt; /* without SA_RESTART: waiting for a line ends, too */
    sigaction(SIGINT, &action, NULL);

    loading.cancel = options.cancel = cancel;
    if ((status = grug_model_load_file(argv[1], &loading, &model, &err)) >= 0
        && (status = grug_session_new(model, &options, &session, &err)) >= 0)
        status = grug_sampler_new(&warm, &sampler, &err);
    while (status >= 0) {
        fputs("> ", stdout);
        fflush(stdout);
        if (fgets(line, sizeof line, stdin) == NULL) {
            putchar('\n');
            break;
        }
        /* An answer may have ended within a character, and another seed is another answer. */
        if ((status = grug_sampler_reset(sampler, seed++, &err)) >= 0)
            status = grug_session_feed(session, (const uint8_t *)line, strlen(line), &err);
        if (status >= 0) status = answer(session, sampler, bytes, &err);
        if (status == GRUG_ECANCELED) { /* the session holds what was written until then, and goes on */
            grug_cancel_reset(cancel);
            status = GRUG_OK;
        }
        putchar('\n');
    }
    if (status < 0) fprintf(stderr, "prompt: %s\n", err.message);
    grug_sampler_free(sampler);
    grug_session_free(session);
    grug_model_free(model);
    grug_cancel_free(cancel);
    return status < 0;
}
