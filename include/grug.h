/* grug.h - C API of libgrug, a byte-level language model. Made from src/ffi by build.rs; do not edit.
 *
 * OWNERSHIP  X_new, X_load and X_fork return an owned handle; free it once with X_free (NULL is a no-op). Handles keep what
 *            they use alive: a session may outlive its grug_model handle, a sampler its grug_grammar. Input pointers are
 *            borrowed for the call only (sole exceptions: GRUG_LOAD_BORROW, and the log function with its user
 *            pointer). Output goes to caller memory, which must not overlap any input; the library never asks you to
 *            free() something.
 * THREADS    grug_model and grug_grammar are immutable: use them from any threads at once. grug_session and
 *            grug_sampler: any thread, one at a time; a concurrent call returns GRUG_EBUSY, not undefined behaviour.
 *            grug_cancel: any thread, any time. Freeing a handle while another thread is in a call with it is the one
 *            thing not caught. n_threads = 1 creates no threads; the worker threads of a model, named grug-1 and so on,
 *            are joined by the free of its last handle, sessions included. After fork() a child may use what was loaded
 *            with n_threads = 1, and free or load anything; computing with the threads of its parent is GRUG_EFORK.
 * ERRORS     A status is >= 0 on success, negative on failure. `err` (may be NULL) is caller memory, written on failure
 *            only; nothing is stored in globals or thread-locals, so it works across goroutines, libuv and GCD. On
 *            failure outputs are untouched unless documented. No call aborts, exits, prints, raises signals or unwinds;
 *            a panic inside the library becomes GRUG_EPANIC and poisons the handles of that call only: later calls with
 *            them return GRUG_EPANIC as well, and they can be freed.
 * BYTES      Text is (pointer, length) bytes; NULL is fine when the length is 0. Paths and keys are NUL-terminated
 *            UTF-8; on Unix a path may be any bytes.
 * OPTIONS    Set .size = sizeof(struct), zero the rest: zero is always the default, and NULL for the whole struct is all
 *            defaults. Structs only grow at the end; fields that the library does not know must be zero, else
 *            GRUG_EVERSION. Out structs: set .size too, at most that much is written. grug_error and grug_bytes have no
 *            .size: they never change.
 * DETERMINISM  Same build, machine, options and sequence of calls => same bytes, for any n_threads.
 *            GRUG_MODEL_PORTABLE makes how bytes are fed and batched, instruction set, machine and system irrelevant
 *            too: logits are then the same bit by bit. */
#ifndef GRUG_H
#define GRUG_H
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(GRUG_STATIC)
#define GRUG_API __declspec(dllimport)
#else
#define GRUG_API
#endif
#if defined(__GNUC__)
#define GRUG_MUST_USE __attribute__((warn_unused_result))
#else
#define GRUG_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors ---------------------------------------------------------------------------------------------- */

/**
 * What a call returns: >= 0 on success, one of the following on failure. Numbers are never reused. It travels as a
 * fixed-width integer, so that a value that this header does not know is a number and not undefined behaviour.
 */
typedef int32_t grug_status;

/**
 * What went wrong, in memory of the caller; needs no initialization and no cleanup. Written on failure only. Its
 * layout never changes.
 */
typedef struct grug_error {
    /** The status that the call returned. */
    grug_status status;
    /** UTF-8, NUL-terminated; names the file, tensor or option at fault. */
    char message[252];
} grug_error;

/** Success. */
#define GRUG_OK 0
/** An argument is NULL, out of range or contradicts another one. */
#define GRUG_EINVAL -1
/** The system has no memory left for the request. */
#define GRUG_ENOMEM -2
/** Reading or writing a file failed. */
#define GRUG_EIO -3
/** The bytes are not a valid model, saved session, archive or grammar. */
#define GRUG_EFORMAT -4
/** The data or the options need a newer library. */
#define GRUG_EVERSION -5
/** The device is missing or failed. */
#define GRUG_EDEVICE -6
/** The caller's cancellation token was triggered. */
#define GRUG_ECANCELED -7
/** Another thread is using this handle. */
#define GRUG_EBUSY -8
/** The context is full and the session was told not to slide. */
#define GRUG_EFULL -9
/** The session cannot go back that far. */
#define GRUG_EREWIND -10
/** The output buffer is too small; the size it needs was written. */
#define GRUG_ESPACE -11
/** The saved session or archive belongs to another model or context. */
#define GRUG_EMISMATCH -12
/** No byte may come next. */
#define GRUG_EDEADEND -13
/** There is nothing of that name or number. */
#define GRUG_ENOTFOUND -14
/** This model, device or build cannot do that. */
#define GRUG_EUNSUPPORTED -15
/** The handle was made before a fork() and its worker threads stayed in the parent. */
#define GRUG_EFORK -16
/** The library itself failed; the handle is poisoned: free it. */
#define GRUG_EPANIC -17

/* ---- library --------------------------------------------------------------------------------------------- */

/**
 * The ABI this header describes: major << 16 | minor. A minor version only adds; while the major version is 0
 * anything may change.
 */
#define GRUG_ABI_VERSION 2

/**
 * The ABI of the library that is running: compare its upper 16 bits with those of GRUG_ABI_VERSION, and while they are 0
 * all of it.
 */
GRUG_API uint32_t grug_abi_version(void);

/** The release, such as "0.1.0"; static. */
GRUG_API const char *grug_version(void);

/** The name of a status, such as "GRUG_EIO"; static, never NULL. Any status >= 0 is "GRUG_OK". */
GRUG_API const char *grug_status_name(grug_status status);

/* ---- devices --------------------------------------------------------------------------------------------- */

/** Kind of a grug_device: the processor. */
#define GRUG_DEVICE_CPU 1
/** Kind of a grug_device: an NVIDIA GPU through its driver. */
#define GRUG_DEVICE_CUDA 2
/** Kind of a grug_device: any GPU through Vulkan, Metal or DirectX 12. */
#define GRUG_DEVICE_WGPU 3

/** A device that this machine has and this build can use. The texts end in NUL; one that is too long is cut. */
typedef struct grug_device {
    /** sizeof(grug_device), set by the caller */
    size_t size;
    /** Its memory in bytes; 0 where unknown. */
    uint64_t memory_total;
    /** How much of that is free, in bytes; 0 where unknown. */
    uint64_t memory_free;
    /** A GRUG_DEVICE_ kind. */
    uint32_t kind;
    /** Its number among those of its kind. */
    uint32_t index;
    /** For grug_model_options.device: "cpu", "cuda:0", "wgpu:0". */
    char name[112];
    /** What it can do, separated by commas, such as "sm_90" or "vulkan,discretegpu"; empty for the CPU. */
    char features[128];
    /** What its maker calls it. */
    char description[128];
} grug_device;

/** How many devices there are; at least 1, for "cpu" is always the first. Asks the drivers, which takes a moment. */
GRUG_API uint32_t grug_device_count(void);

/** Describes device i, counted from 0. out->size must be set. GRUG_ENOTFOUND: there are no more. */
GRUG_API grug_status grug_device_get(uint32_t i, grug_device *out, grug_error *err);

/* ---- cancellation ---------------------------------------------------------------------------------------- */

/** A cancellation token: give it to a model or a session when that is made, and trigger it to stop what it is doing. */
typedef struct grug_cancel grug_cancel;

/** A new token, not triggered. NULL only where there is no memory. */
GRUG_API GRUG_MUST_USE grug_cancel *grug_cancel_new(void);

/**
 * Triggers the token: what uses it returns GRUG_ECANCELED soon, and so does whatever starts later, until the token is
 * reset. One atomic store: fit for signal handlers and any thread.
 */
GRUG_API void grug_cancel_trigger(grug_cancel *c);

/** Makes the token as new. */
GRUG_API void grug_cancel_reset(grug_cancel *c);

/** Frees the handle; operations that still use the token go on. */
GRUG_API void grug_cancel_free(grug_cancel *c);

/* ---- model ----------------------------------------------------------------------------------------------- */

/**
 * Read the file into memory instead of mapping it. A mapped file must not be truncated or written while a model uses
 * it; replacing it by rename is fine.
 */
#define GRUG_MODEL_NO_MMAP 1
/**
 * Keep the weights in memory, as mlock does: the system may not page them out. GRUG_ENOMEM where its limit is lower,
 * GRUG_EUNSUPPORTED where it has no such thing.
 */
#define GRUG_MODEL_MLOCK 2
/**
 * Compute logits whose bits are the same on every machine, instruction set and thread count, however bytes are fed and
 * batched. On the CPU, slower. Compression needs it.
 */
#define GRUG_MODEL_PORTABLE 4
/** On a GPU: do not compare a few bytes' logits with the CPU's while loading. */
#define GRUG_MODEL_NO_SELF_CHECK 8
/** Copy the buffer. */
#define GRUG_LOAD_COPY 0
/** Use the buffer where it is: it must stay as it is until the last handle of the model and its sessions is freed. */
#define GRUG_LOAD_BORROW 1
/** Something failed for which a call has a status alone: a session of grug_session_next_batch. */
#define GRUG_LOG_ERROR 1
/** Something works, but not as well as it could. */
#define GRUG_LOG_WARN 2
/** What was loaded, and what computes it. */
#define GRUG_LOG_INFO 3
/** What is made of it. */
#define GRUG_LOG_DEBUG 4

/** A model: immutable weights and the threads that compute with them. Sessions keep what they need of it. */
typedef struct grug_model grug_model;

/**
 * Receives a line of log text: UTF-8, no line end, not NUL-terminated, valid during the call. May be called from any
 * thread, several at once. Must not unwind, nor use the handle that the call at hand is using.
 */
typedef void (*grug_log_fn)(void *user, uint32_t level, const char *text, size_t len);

/** Receives progress from 0 to 1, on the thread that called; anything but 0 cancels: GRUG_ECANCELED. Must not unwind. */
typedef int32_t (*grug_progress_fn)(void *user, float fraction);

/** How to load a model. NULL instead of it means all defaults. */
typedef struct grug_model_options {
    /** sizeof(grug_model_options) */
    size_t size;
    /** Where to compute: NULL = "cpu"; "cuda:0", "wgpu:0" (grug_device_get lists them); "auto" = the best there is. */
    const char *device;
    /** Threads that compute: 0 = one for each physical core, 1 = the calling thread alone. */
    uint32_t n_threads;
    /** GRUG_MODEL_ flags. */
    uint32_t flags;
    /** NULL = silent. Called as long as a handle of the model or of its sessions lives. */
    grug_log_fn log;
    /** NULL, or hears how far loading is. */
    grug_progress_fn progress;
    /** Passed to both functions. */
    void *user;
    /** Stops loading. */
    const grug_cancel *cancel;
} grug_model_options;

/** What a model is. */
typedef struct grug_model_info {
    /** sizeof(grug_model_info), set by the caller */
    size_t size;
    /** Trained numbers. */
    uint64_t n_params;
    /** Bytes of the weights in memory or in the mapped file. */
    uint64_t weight_bytes;
    /** Tells this model from others: a hash of configuration and weights, computed when it is first asked for. */
    uint64_t fingerprint;
    /** The context in bytes: what a prediction can look back on. */
    uint64_t context_bytes;
    /** The most bytes that grug_session_save writes. */
    uint64_t state_bytes;
    /** How far grug_session_rewind always works in a session of the whole context. */
    uint64_t rewind_bytes;
    /** Numbers of grug_session_get_embedding. */
    uint32_t embedding_dim;
    /** The byte that ends a document, 0..255, or -1: generation stops after it. */
    int32_t end_byte;
} grug_model_info;

/** Loads a model file. */
GRUG_API GRUG_MUST_USE grug_status grug_model_load_file(const char *path, const grug_model_options *opt,
    grug_model **out, grug_error *err);

/** Loads a model file that is in memory. mode is GRUG_LOAD_COPY or GRUG_LOAD_BORROW. */
GRUG_API GRUG_MUST_USE grug_status grug_model_load_buffer(const uint8_t *data, size_t len, uint32_t mode,
    const grug_model_options *opt, grug_model **out, grug_error *err);

/** Frees the handle. Sessions of the model go on; its memory goes with the last of them. */
GRUG_API void grug_model_free(grug_model *m);

/** Describes the model. out->size must be set. */
GRUG_API grug_status grug_model_get_info(const grug_model *m, grug_model_info *out, grug_error *err);

/**
 * Copies the value of a metadata entry, which are bytes without a NUL. *len: in the room, out the length. Too little
 * room is GRUG_ESPACE, and then *len is the room it takes; value may be NULL where *len is 0.
 */
GRUG_API grug_status grug_model_get_metadata(const grug_model *m, const char *key, char *value, size_t *len,
    grug_error *err);

/**
 * Copies the key of metadata entry i, counted from 0 in the order of the keys, as grug_model_get_metadata copies
 * values. GRUG_ENOTFOUND: there are no more.
 */
GRUG_API grug_status grug_model_get_metadata_key(const grug_model *m, size_t i, char *key, size_t *len,
    grug_error *err);

/* ---- grammar --------------------------------------------------------------------------------------------- */

/** A regular expression, in the syntax of Rust's regex crate. */
#define GRUG_GRAMMAR_REGEX 1
/** GBNF, the notation of llama.cpp; the rule `root` is the text. */
#define GRUG_GRAMMAR_GBNF 2
/** A JSON Schema: the text is one JSON value that is valid under it. */
#define GRUG_GRAMMAR_JSON_SCHEMA 3

/** A compiled grammar: immutable, for any number of samplers in any threads, which keep what they need of it. */
typedef struct grug_grammar grug_grammar;

/**
 * Compiles a grammar from a source, which is UTF-8. The whole output is matched, from the first byte that a sampler
 * picks to the last. Any source compiles in bounded time and memory; GRUG_EFORMAT says where it is malformed,
 * GRUG_EUNSUPPORTED what of its notation this library has not.
 */
GRUG_API GRUG_MUST_USE grug_status grug_grammar_new(uint32_t kind, const char *source, size_t len, grug_grammar **out,
    grug_error *err);

/** Frees the handle; samplers that have the grammar go on. */
GRUG_API void grug_grammar_free(grug_grammar *g);

/* ---- sampler --------------------------------------------------------------------------------------------- */

/** Only ever extend to well-formed UTF-8. The first byte picked begins a character. */
#define GRUG_SAMPLE_UTF8 1

/** A sampler: options, a random generator, and what it picked: the window of the penalties, the place in the grammar. */
typedef struct grug_sampler grug_sampler;

/**
 * How to pick a byte. The steps run in this order: bias, grammar and UTF-8, penalties, temperature, top_k, typical_p,
 * top_p, min_p, draw; mirostat stands in place of the four before the draw. All zeros, and NULL, are greedy: the
 * likeliest byte, the lowest of equals. Draw number n of a seed is the same number on every machine.
 */
typedef struct grug_sampler_options {
    /** sizeof(grug_sampler_options) */
    size_t size;
    /** Used as it is: 0 is a seed like any other. */
    uint64_t seed;
    /** Logits are divided by it; 0 = greedy. */
    float temperature;
    /** Keep the likeliest bytes that together have this probability; 0 or 1 = off. */
    float top_p;
    /** Keep bytes at least this fraction as likely as the likeliest; 0 = off. */
    float min_p;
    /** Keep the bytes whose surprise is nearest to the expected one, until they have this probability; 0 or 1 = off. */
    float typical_p;
    /** Keep this many of the likeliest bytes; 0 = off. */
    uint32_t top_k;
    /** The penalties count the last so many bytes that this sampler picked, at most 2^20; 0 = off. */
    uint32_t penalty_window;
    /** Divides the positive logits of bytes in the window, and multiplies negative ones; 0 or 1 = off. */
    float repeat_penalty;
    /** Taken off a byte's logit for each time that it is in the window. */
    float frequency_penalty;
    /** Taken off the logit of each byte in the window. */
    float presence_penalty;
    /** Mirostat 2: keep the surprise of the text near this many bits a byte; 0 = off. */
    float mirostat_tau;
    /** How fast mirostat learns; 0 = 0.1. */
    float mirostat_eta;
    /** GRUG_SAMPLE_ flags. */
    uint32_t flags;
    /** NULL, or 256 numbers that are added to the logits; -INFINITY bans a byte. Copied. */
    const float *bias;
    /** NULL, or what may be written. Retained. */
    const grug_grammar *grammar;
} grug_sampler_options;

/** Makes a sampler. */
GRUG_API GRUG_MUST_USE grug_status grug_sampler_new(const grug_sampler_options *opt, grug_sampler **out,
    grug_error *err);

/** Makes an independent sampler that goes on as this one would. */
GRUG_API GRUG_MUST_USE grug_status grug_sampler_fork(grug_sampler *sp, grug_sampler **out, grug_error *err);

/** Makes the sampler as new, at the beginning of a text, with another seed or the same. */
GRUG_API grug_status grug_sampler_reset(grug_sampler *sp, uint64_t seed, grug_error *err);

/**
 * Picks a byte, 0..255, from logits that the caller may have edited, and moves on: random generator, window, grammar.
 * The logit of a byte that must not come is -INFINITY. Pair it with grug_session_feed. On failure nothing has moved.
 */
GRUG_API GRUG_MUST_USE int32_t grug_sampler_pick(grug_sampler *sp, const float logits[256], grug_error *err);

/**
 * Takes a byte that was chosen elsewhere as if it had been picked here, without a draw: text that a grammar begins
 * with, say, or an input of grug_session_next_batch. GRUG_EDEADEND where grammar or UTF-8 do not allow it, and nothing
 * has changed.
 */
GRUG_API GRUG_MUST_USE grug_status grug_sampler_accept(grug_sampler *sp, uint8_t byte, grug_error *err);

/**
 * Which bytes may come next by bias, grammar and UTF-8: bit b & 7 of mask[b >> 3]. Returns 1 where the text so far is
 * complete, so that it may end here (always, where there is neither grammar nor UTF-8), else 0.
 */
GRUG_API GRUG_MUST_USE int32_t grug_sampler_allowed(grug_sampler *sp, uint8_t mask[32], grug_error *err);

/** Frees the sampler. */
GRUG_API void grug_sampler_free(grug_sampler *sp);

/* ---- session --------------------------------------------------------------------------------------------- */

/** When the context is full, forget the oldest bytes. */
#define GRUG_OVERFLOW_SLIDE 0
/** When the context is full, refuse to go on: GRUG_EFULL. */
#define GRUG_OVERFLOW_ERROR 1
/** Flag of a session: compute a byte at a time, without drafts of what may come. Only time depends on it. */
#define GRUG_SESSION_NO_DRAFTS 1

/** A session: one stream of bytes, what the model remembers of it, and the prediction of its next byte. */
typedef struct grug_session grug_session;

/** How a session behaves. NULL instead of it means all defaults. */
typedef struct grug_session_options {
    /** sizeof(grug_session_options) */
    size_t size;
    /** How many bytes a prediction looks back on at most; 0 = the model's context. */
    uint64_t max_context;
    /** GRUG_OVERFLOW_SLIDE or GRUG_OVERFLOW_ERROR. */
    uint32_t overflow;
    /** GRUG_SESSION_ flags. */
    uint32_t flags;
    /** Stops whatever the session is doing, within a few milliseconds of work. Retained. */
    const grug_cancel *cancel;
} grug_session_options;

/** Bytes of the caller. Its layout never changes. */
typedef struct grug_bytes {
    /** The first byte; may be NULL where len is 0. */
    const uint8_t *data;
    /** How many there are. */
    size_t len;
} grug_bytes;

/** The buffer is full: call again to go on. */
#define GRUG_STOP_CAPACITY 0
/** The model ended the document; its end byte is the last in the buffer. */
#define GRUG_STOP_END_BYTE 1
/** A stop sequence appeared; it is included. */
#define GRUG_STOP_SEQUENCE 2
/** The grammar is complete. */
#define GRUG_STOP_GRAMMAR 3

/**
 * Makes an empty session. It allocates all that it will ever need. Asked for a prediction while it is empty (by next,
 * generate, get_logits or score), a session begins with a byte 0 of its own, which is context but not counted by
 * position.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_new(const grug_model *m, const grug_session_options *opt,
    grug_session **out, grug_error *err);

/**
 * Makes an independent session at this position, with the same options. Goes on as this one would; shares the weights
 * and the cancellation token.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_fork(grug_session *s, grug_session **out, grug_error *err);

/**
 * From now on this token stops whatever the session is doing; NULL is no token. A fork shares the token of its origin
 * until it gets one of its own. Retained.
 */
GRUG_API grug_status grug_session_set_cancel(grug_session *s, const grug_cancel *cancel, grug_error *err);

/** Frees the session. */
GRUG_API void grug_session_free(grug_session *s);

/** Makes the session empty again. */
GRUG_API grug_status grug_session_reset(grug_session *s, grug_error *err);

/**
 * Bytes that the session has consumed, those fed and those generated. While another thread is in a call, the position
 * before that call. 0 for NULL.
 */
GRUG_API uint64_t grug_session_position(const grug_session *s);

/** Feeds bytes. On an error the session holds exactly the bytes that position counts, and stays usable. */
GRUG_API GRUG_MUST_USE grug_status grug_session_feed(grug_session *s, const uint8_t *data, size_t len,
    grug_error *err);

/** Picks the next byte and feeds it: 0..255, or a negative status. A sampler of NULL is greedy. */
GRUG_API GRUG_MUST_USE int32_t grug_session_next(grug_session *s, grug_sampler *sampler, grug_error *err);

/**
 * Generates text as read(2) reads a file: up to cap bytes into buf; *n is how many, also when the call fails, before it
 * begins or on the way, as by GRUG_ECANCELED. Returns why it paused, a GRUG_STOP_ value; call again to go on. It pauses after a
 * stop sequence, 1 to 256 bytes long, even one that began in an earlier call. A sampler of NULL is greedy.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_generate(grug_session *s, grug_sampler *sampler,
    const grug_bytes *stops, size_t n_stops, uint8_t *buf, size_t cap, size_t *n, grug_error *err);

/**
 * Feeds bytes and says how well they were predicted: nats[i] = -ln p(data[i]), where nats is not NULL, and *total
 * their sum. Divide nats by ln 2 for bits. On an error, nats may be written up to the position that was reached.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_score(grug_session *s, const uint8_t *data, size_t len, float *nats,
    double *total, grug_error *err);

/** Copies the logits of the next byte: ln of its probability, up to a constant. */
GRUG_API grug_status grug_session_get_logits(grug_session *s, float logits[256], grug_error *err);

/**
 * Copies the vector that the logits of the next byte are computed from: dim numbers, which must be the embedding_dim of
 * the model's info.
 */
GRUG_API grug_status grug_session_get_embedding(grug_session *s, float *out, size_t dim, grug_error *err);

/**
 * Undoes the last n bytes, fed or generated, exactly; or GRUG_EREWIND, and nothing has changed. Going back
 * rewind_bytes of the model's info always works in a session of the whole context; fork first to go back further.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_rewind(grug_session *s, uint64_t n, grug_error *err);

/**
 * Writes the session into buf: self-describing, with a checksum, bound to the model's fingerprint, the same on every
 * machine. *len: in the room, out the length, at most state_bytes of the model's info. Too little room is GRUG_ESPACE,
 * and then *len is the room it takes; buf may be NULL where *len is 0.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_save(grug_session *s, uint8_t *buf, size_t *len, grug_error *err);

/**
 * Makes the session what a saved one was, from any bytes: GRUG_EFORMAT where they are no saved session, GRUG_EMISMATCH
 * where it is of another model or context. The session is unchanged then. Its options stay as they are.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_restore(grug_session *s, const uint8_t *buf, size_t len,
    grug_error *err);

/* ---- batch ----------------------------------------------------------------------------------------------- */

/**
 * One step for n distinct sessions of one model: bytes[i] is the byte that s[i] picked and took in, or the
 * negative status of what went wrong there, which stops no other session; the sentence that belongs to it goes to the
 * model's log. samplers may be NULL, and so may any of them: greedy. A sampler serves one session. Where input is not NULL and input[i] >= 0, that byte is fed and
 * nothing is picked. When the call itself fails, no session has moved.
 */
GRUG_API GRUG_MUST_USE grug_status grug_session_next_batch(grug_session *const *s, grug_sampler *const *samplers,
    const int32_t *input, size_t n, int32_t *bytes, grug_error *err);

/* ---- compression ----------------------------------------------------------------------------------------- */

/**
 * Compresses bytes by what the model predicts, which must be loaded with GRUG_MODEL_PORTABLE. Of the options, which may
 * be NULL, max_context and cancel matter: a shorter context is faster and compresses less. *dst_len: in the room, out
 * the length, never above GRUG_COMPRESS_BOUND(src_len). With less room than it takes the work was for nothing:
 * GRUG_ESPACE, and *dst_len is the room it takes. It takes one step of the model a byte.
 */
GRUG_API GRUG_MUST_USE grug_status grug_compress(const grug_model *m, const grug_session_options *opt,
    const uint8_t *src, size_t src_len, uint8_t *dst, size_t *dst_len, grug_error *err);

/**
 * The original of an archive, by the model that made it, on any machine. Of the options, which may be NULL, cancel
 * matters. *dst_len: in the room, out the length. Too little room is GRUG_ESPACE before anything is computed, and then
 * *dst_len is the length that the archive's header promises, which a hostile archive may make as large as it likes; dst
 * may be NULL where *dst_len is 0. An archive that was changed is GRUG_EFORMAT, one of another model GRUG_EMISMATCH.
 */
GRUG_API GRUG_MUST_USE grug_status grug_decompress(const grug_model *m, const grug_session_options *opt,
    const uint8_t *src, size_t src_len, uint8_t *dst, size_t *dst_len, grug_error *err);

/** The most bytes that an archive of n bytes has. */
#define GRUG_COMPRESS_BOUND(n) ((n) + (n) / 64 + 64)

#ifdef __cplusplus
}
#endif
#endif /* GRUG_H */
