/* A host with little memory that is handed files which mean harm: hostile MODEL FILE...
 *
 * Every file is offered as a model, as a saved session, as an archive and as a grammar. Each call is answered with success
 * or an error, in an address space of LIMIT bytes more than the program has anyway: what a file says of itself is no
 * reason to take more, nor to end the process. */
#define _POSIX_C_SOURCE 200809L
#include <grug.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../require.h"

enum { LIMIT = 256 << 20, ROOM = 1 << 16 };

static grug_error err;
static uint8_t room[ROOM];

/* Whether a call succeeded. A panic is a fault of the library, whatever the file. */
static int succeeded(int32_t status) {
    CHECK(status != GRUG_EPANIC);
    CHECK(status >= 0 || (err.status == status && err.message[0] != 0));
    return status >= 0;
}

static void limit_memory(void) {
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    struct rlimit limit;
    CHECK(statm != NULL && fscanf(statm, "%ld", &pages) == 1);
    fclose(statm);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + LIMIT;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

static uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    long end;
    uint8_t *bytes;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0);
    rewind(file);
    bytes = malloc((size_t)end + 1);
    CHECK(bytes != NULL);
    *len = fread(bytes, 1, (size_t)end, file);
    CHECK(*len == (size_t)end);
    fclose(file);
    return bytes;
}

/* Writes a few bytes by a model that could be loaded. */
static void use(grug_model *model) {
    grug_session *session = NULL, *fork = NULL;
    size_t n;
    int i;
    if (succeeded(grug_session_new(model, NULL, &session, &err))) {
        for (i = 0; i < 3; i++) succeeded(grug_session_next(session, NULL, &err));
        if (succeeded(grug_session_fork(session, &fork, &err))) succeeded(grug_session_next(fork, NULL, &err));
        n = ROOM;
        succeeded(grug_session_save(session, room, &n, &err));
        grug_session_free(fork);
        grug_session_free(session);
    }
    grug_model_free(model);
}

static void as_model(const char *path, const uint8_t *bytes, size_t len) {
    static const uint32_t flags[] = { 0, GRUG_MODEL_NO_MMAP, GRUG_MODEL_PORTABLE };
    grug_model_options options = { .size = sizeof options, .n_threads = 1 };
    grug_model *model = NULL;
    size_t i;
    for (i = 0; i < sizeof flags / sizeof *flags; i++) {
        options.flags = flags[i];
        if (succeeded(grug_model_load_file(path, &options, &model, &err))) use(model);
    }
    if (succeeded(grug_model_load_buffer(bytes, len, GRUG_LOAD_COPY, &options, &model, &err))) use(model);
}

static void as_anything_else(const grug_model *model, const uint8_t *bytes, size_t len) {
    static const uint32_t kinds[] = { GRUG_GRAMMAR_REGEX, GRUG_GRAMMAR_GBNF, GRUG_GRAMMAR_JSON_SCHEMA };
    grug_session *session = NULL;
    size_t i, n = ROOM;
    CHECK(succeeded(grug_session_new(model, NULL, &session, &err)));
    succeeded(grug_session_restore(session, bytes, len, &err));
    CHECK(succeeded(grug_session_next(session, NULL, &err)));
    grug_session_free(session);
    succeeded(grug_decompress(model, NULL, bytes, len, room, &n, &err));
    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        grug_grammar *grammar = NULL;
        grug_sampler *sampler = NULL;
        if (succeeded(grug_grammar_new(kinds[i], (const char *)bytes, len, &grammar, &err))) {
            grug_sampler_options options = { .size = sizeof options, .grammar = grammar };
            if (succeeded(grug_sampler_new(&options, &sampler, &err)) && len > 0)
                succeeded(grug_sampler_accept(sampler, *bytes, &err));
            grug_sampler_free(sampler);
            grug_grammar_free(grammar);
        }
    }
}

int main(int argc, char **argv) {
    grug_model_options options = { .size = sizeof options, .n_threads = 1, .flags = GRUG_MODEL_PORTABLE };
    grug_model *model = NULL;
    int i;
    CHECK(argc > 2);
    limit_memory();
    CHECK(succeeded(grug_model_load_file(argv[1], &options, &model, &err)));
    for (i = 2; i < argc; i++) {
        size_t len;
        uint8_t *bytes = read_file(argv[i], &len);
        puts(argv[i]);
        fflush(stdout);
        as_model(argv[i], bytes, len);
        as_anything_else(model, bytes, len);
        free(bytes);
    }
    grug_model_free(model);
    puts("hostile: all passed");
    return 0;
}
