/* A host that loads the library while it runs and drops it again: dlopen LIBRARY MODEL.
 *
 * Round after round, with a thread that used the library and outlives it. No thread of the library is left behind, and
 * the address space does not grow by a copy of it each time. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <dlfcn.h>
#include <grug.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "../require.h"

enum { ROUNDS = 12, BYTES = 60 };

static struct {
    grug_status (*load)(const char *, const grug_model_options *, grug_model **, grug_error *);
    grug_status (*session_new)(const grug_model *, const grug_session_options *, grug_session **, grug_error *);
    grug_status (*generate)(grug_session *, grug_sampler *, const grug_bytes *, size_t, uint8_t *, size_t, size_t *,
                            grug_error *);
    void (*session_free)(grug_session *);
    void (*model_free)(grug_model *);
} grug;

static sem_t used, dropped;

/* The address of a function: ISO C has no cast from the pointer that dlsym gives. */
static void find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    CHECK(symbol != NULL);
    memcpy(function, &symbol, sizeof symbol);
}

static int lines_with(const char *path, const char *text) {
    FILE *file = fopen(path, "r");
    char line[1000];
    int n = 0;
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) n += strstr(line, text) != NULL;
    fclose(file);
    return n;
}

static int threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int n = 0;
    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) n += task->d_name[0] != '.';
    closedir(tasks);
    return n;
}

static void use(const char *path, uint8_t text[BYTES]) {
    grug_model_options options = { .size = sizeof options, .n_threads = 2 };
    grug_model *model = NULL;
    grug_session *session = NULL;
    grug_error err;
    size_t n = 0;
    CHECK(grug.load("no-such-model", &options, &model, &err) == GRUG_EIO);
    CHECK(grug.load(path, &options, &model, &err) == GRUG_OK);
    CHECK(grug.session_new(model, NULL, &session, &err) == GRUG_OK);
    CHECK(grug.generate(session, NULL, NULL, 0, text, BYTES, &n, &err) == GRUG_STOP_CAPACITY && n == BYTES);
    grug.model_free(model);
    grug.session_free(session);
}

/* A thread that has been inside the library ends after the library is gone. */
static void *outlive(void *path) {
    uint8_t text[BYTES];
    use(path, text);
    CHECK(sem_post(&used) == 0);
    CHECK(sem_wait(&dropped) == 0);
    return NULL;
}

int main(int argc, char **argv) {
    uint8_t first[BYTES], text[BYTES];
    int round, mapped = 0;
    CHECK(argc == 3);
    CHECK(sem_init(&used, 0, 0) == 0 && sem_init(&dropped, 0, 0) == 0);
    for (round = 0; round < ROUNDS; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        pthread_t thread;
        CHECK(library != NULL);
        find(library, "grug_model_load_file", &grug.load);
        find(library, "grug_session_new", &grug.session_new);
        find(library, "grug_session_generate", &grug.generate);
        find(library, "grug_session_free", &grug.session_free);
        find(library, "grug_model_free", &grug.model_free);
        CHECK(pthread_create(&thread, NULL, outlive, argv[2]) == 0);
        use(argv[2], text);
        CHECK(sem_wait(&used) == 0);
        CHECK_SOON(threads() == 2);
        CHECK(dlclose(library) == 0);
        CHECK(sem_post(&dropped) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK_SOON(threads() == 1);
        if (round == 0) {
            memcpy(first, text, BYTES);
            mapped = lines_with("/proc/self/maps", "libgrug");
        }
        CHECK(memcmp(first, text, BYTES) == 0);
        CHECK(lines_with("/proc/self/maps", "libgrug") == mapped);
    }
    printf("dlopen: all passed, %s\n", mapped == 0 ? "unloaded" : "kept");
    sem_destroy(&used);
    sem_destroy(&dropped);
    return 0;
}
