/* generate: streams text from a model to the terminal. Ctrl-C stops it cleanly; a second Ctrl-C at once.
 *
 *   cargo build --release
 *   cc -O2 -Iinclude examples/c/generate.c -Ltarget/release -lgrug -Wl,-rpath,$PWD/target/release -o generate
 *   ./generate model.safetensors "To be, or not to be" 500 -t 0.8 */
#include <errno.h>
#include <grug.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: generate MODEL [PROMPT [BYTES]] [options]\n"
    "  MODEL    a model file (.safetensors)\n"
    "  PROMPT   what the text begins with; - reads it from the standard input\n"
    "  BYTES    how many to generate (400; 0 = until Ctrl-C)\n"
    "  -t T     temperature (0.8; 0 = greedy)\n"
    "  -k K     draw from the K likeliest bytes (0 = off)\n"
    "  -p P     draw from the likeliest bytes that together have probability P (0 = off)\n"
    "  -m P     leave out bytes less likely than P times the likeliest (0 = off)\n"
    "  -s SEED  the same seed gives the same text (0)\n"
    "  -j N     threads (0 = one for each core)\n"
    "  --stop TEXT  end after this text\n";

/* The token that Ctrl-C triggers: triggering is one atomic store, so a signal handler may do it. */
static grug_cancel *cancel;

static void on_interrupt(int signal_number) {
    grug_cancel_trigger(cancel);
    signal(signal_number, SIG_DFL);
}

static void usage_error(const char *what, const char *argument) {
    fprintf(stderr, "generate: %s: %s\n%s", argument, what, USAGE);
    exit(2);
}

static double number(const char *option, const char *text, double most) {
    char *end;
    double value;
    if (text == NULL) usage_error("needs a number", option);
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= most)) usage_error("is not a number that fits", text);
    return value;
}

static uint64_t seed_number(const char *option, const char *text) {
    char *end;
    unsigned long long value;
    if (text == NULL) usage_error("needs a number", option);
    errno = 0;
    value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || *text == '-' || errno != 0) usage_error("is not a number that fits", text);
    return value;
}

/* Feeds the standard input to the session and echoes it. */
static grug_status feed_stdin(grug_session *session, grug_error *err) {
    uint8_t chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        grug_status status = grug_session_feed(session, chunk, n, err);
        if (status < 0) return status;
        fwrite(chunk, 1, n, stdout);
    }
    return GRUG_OK;
}

static grug_status feed_text(grug_session *session, const char *text, grug_error *err) {
    fputs(text, stdout);
    return grug_session_feed(session, (const uint8_t *)text, strlen(text), err);
}

/* Generates `bytes` bytes, or until something stops it, such as a full disk; 0 = no end. */
static grug_status stream(grug_session *session, grug_sampler *sampler, const char *stop, uint64_t bytes,
                          grug_error *err) {
    /* A byte at a time is what a reader sees at once; the library does not mind, and a larger buffer saves little. */
    uint8_t chunk[1];
    grug_bytes stops[1];
    uint64_t done = 0;
    grug_status status = GRUG_STOP_CAPACITY;
    stops[0].data = (const uint8_t *)stop;
    stops[0].len = stop ? strlen(stop) : 0;
    while (status == GRUG_STOP_CAPACITY && (bytes == 0 || done < bytes) && !ferror(stdout)) {
        size_t n = 0;
        status = grug_session_generate(session, sampler, stops, stop ? 1 : 0, chunk, sizeof chunk, &n, err);
        fwrite(chunk, 1, n, stdout);
        fflush(stdout);
        done += n;
    }
    return status;
}

int main(int argc, char **argv) {
    grug_model_options model_options = { .size = sizeof model_options };
    grug_session_options session_options = { .size = sizeof session_options };
    grug_sampler_options sampler_options = { .size = sizeof sampler_options, .temperature = 0.8f };
    grug_model *model = NULL;
    grug_session *session = NULL;
    grug_sampler *sampler = NULL;
    const char *path = NULL, *prompt = NULL, *length = NULL, *stop = NULL;
    uint64_t bytes = 400;
    grug_error err;
    grug_status status;
    int i;

    for (i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (option[0] != '-' || strcmp(option, "-") == 0) {
            if (path == NULL) path = option;
            else if (prompt == NULL) prompt = option;
            else if (length == NULL) length = option;
            else usage_error("is one argument too many", option);
            continue;
        }
        if (strcmp(option, "-h") == 0 || strcmp(option, "--help") == 0) {
            fputs(USAGE, stdout);
            return 0;
        } else if (strcmp(option, "-t") == 0) sampler_options.temperature = (float)number(option, value, 1e6);
        else if (strcmp(option, "-k") == 0) sampler_options.top_k = (uint32_t)number(option, value, 256);
        else if (strcmp(option, "-p") == 0) sampler_options.top_p = (float)number(option, value, 1);
        else if (strcmp(option, "-m") == 0) sampler_options.min_p = (float)number(option, value, 1);
        else if (strcmp(option, "-s") == 0) sampler_options.seed = seed_number(option, value);
        else if (strcmp(option, "-j") == 0) model_options.n_threads = (uint32_t)number(option, value, 1024);
        else if (strcmp(option, "--stop") == 0) {
            if (value == NULL || *value == '\0') usage_error("needs a text", option);
            stop = value;
        } else usage_error("is no option", option);
        i++;
    }
    if (path == NULL) usage_error("needs the path of a model", "MODEL");
    if (length != NULL) bytes = (uint64_t)number("BYTES", length, 1e15);
    if (GRUG_ABI_VERSION != grug_abi_version()) { /* from 1.0 on, the upper 16 bits are what counts */
        fprintf(stderr, "generate: libgrug %s has another ABI than the header it was compiled with\n", grug_version());
        return 1;
    }
    if ((cancel = grug_cancel_new()) == NULL) return fputs("generate: out of memory\n", stderr), 1;
    signal(SIGINT, on_interrupt);
    model_options.cancel = cancel;
    session_options.cancel = cancel;

    (void)((status = grug_model_load_file(path, &model_options, &model, &err)) < 0
           || (status = grug_session_new(model, &session_options, &session, &err)) < 0
           || (status = grug_sampler_new(&sampler_options, &sampler, &err)) < 0
           || (prompt != NULL && strcmp(prompt, "-") == 0 && (status = feed_stdin(session, &err)) < 0)
           || (prompt != NULL && strcmp(prompt, "-") != 0 && (status = feed_text(session, prompt, &err)) < 0)
           || (status = stream(session, sampler, stop, bytes, &err)));
    if (session != NULL) putchar('\n');

    grug_sampler_free(sampler);
    grug_session_free(session);
    grug_model_free(model);
    signal(SIGINT, SIG_DFL);
    grug_cancel_free(cancel);
    if (status < 0 && status != GRUG_ECANCELED) {
        fprintf(stderr, "generate: %s\n", err.message);
        return 1;
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("generate: cannot write the output\n", stderr);
        return 1;
    }
    return status == GRUG_ECANCELED ? 130 : 0;
}
