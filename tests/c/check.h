/* What the test programs share: checks that say where they failed, and the suites that main.c runs. */
#ifndef CHECK_H
#define CHECK_H
#include <grug.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "require.h"

/* Runs a call that has `err` as its error, and expects success. */
#define OK(call)                                                                                          \
    do {                                                                                                  \
        grug_error err;                                                                                   \
        int32_t status_ = (call);                                                                         \
        if (status_ < 0) {                                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, grug_status_name(status_), err.message); \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)

/* Runs a call that has `err` as its error, and expects this status and a message with this text in it. */
#define FAILS(expected, text, call)                                                                       \
    do {                                                                                                  \
        grug_error err;                                                                                   \
        int32_t status_;                                                                                  \
        memset(&err, 0x55, sizeof err);                                                                   \
        status_ = (call);                                                                                 \
        if (status_ != (expected) || err.status != (expected) || strstr(err.message, text) == NULL) {     \
            fprintf(stderr, "%s:%d: expected %s with \"%s\", not %s (%d): %.252s\n", __FILE__, __LINE__,   \
                    grug_status_name(expected), text, grug_status_name(status_), (int)status_,            \
                    status_ < 0 ? err.message : "");                                                      \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)

/* The model that the Rust side of the test made: causal, with a context of CONTEXT bytes, and metadata "note". */
#define CONTEXT 32
extern const char *model_path;
/* The same with the end byte END_BYTE. */
#define END_BYTE 10
extern const char *end_byte_model_path;

grug_model *load_model(uint32_t n_threads);
grug_session *new_session(const grug_model *model, uint32_t overflow, const grug_cancel *cancel);
grug_sampler *new_sampler(float temperature, uint64_t seed);
void feed(grug_session *session, const char *text);

void test_library(void);
void test_options(void);
void test_model(void);
void test_session(void);
void test_state(void);
void test_sampler(void);
void test_cancel(void);
void test_threads(void);
void test_grammar(void);
void test_compress(void);
void test_hooks(void);
void test_null(void);
void test_fork(void);
#endif
