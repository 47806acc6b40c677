/* What a test program requires: checks that say where they failed. Its users define _POSIX_C_SOURCE. */
#ifndef REQUIRE_H
#define REQUIRE_H
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/* As CHECK, of what may take a moment: the system lists a thread a little longer than until it was joined. */
#define CHECK_SOON(condition)                                                         \
    do {                                                                              \
        const struct timespec pause_ = { 0, 1000000 };                                \
        int rounds_ = 0;                                                              \
        while (!(condition) && rounds_++ < 5000) nanosleep(&pause_, NULL);            \
        CHECK(condition);                                                             \
    } while (0)
#endif
