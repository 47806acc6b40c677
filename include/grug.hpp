// grug.hpp - C++ API of libgrug: grug.h with RAII and exceptions. Header-only; C++11, more with C++17 and C++20.
//
// Handles are move-only and free themselves. What grug.h says of threads, ownership and determinism holds here as well.
// Failures are exceptions of type grug::error with the status and the message of the C API; running out of memory is
// std::bad_alloc. A moved-from handle is null, and using it is an error with GRUG_EINVAL.
#ifndef GRUG_HPP
#define GRUG_HPP

#include <grug.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if __cplusplus >= 201703L || (defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#include <string_view>
#define GRUG_HAS_STRING_VIEW 1
#endif
#if __cplusplus >= 202002L || (defined(_MSVC_LANG) && _MSVC_LANG >= 202002L)
#include <version>
#if defined(__cpp_lib_span)
#include <span>
#define GRUG_HAS_SPAN 1
#endif
#if defined(__cpp_lib_jthread)
#include <stop_token>
#define GRUG_HAS_STOP_TOKEN 1
#endif
#endif

namespace grug {

/// A call of the C API failed.
class error : public std::runtime_error {
public:
    explicit error(const grug_error &e, std::size_t written = 0)
        : std::runtime_error(e.message), status_(e.status), written_(written) {}
    error(grug_status status, const char *message) : std::runtime_error(message), status_(status), written_(0) {}
    /// A GRUG_E status.
    grug_status status() const noexcept { return status_; }
    /// Its name, such as "GRUG_EIO".
    const char *status_name() const noexcept { return grug_status_name(status_); }
    /// Bytes that generate() had written into the buffer.
    std::size_t written() const noexcept { return written_; }

private:
    grug_status status_;
    std::size_t written_;
};

/// A cancellation token was triggered. What was done until then is kept.
class canceled : public error {
public:
    using error::error;
};

/// Bytes of the caller, borrowed for a call: text, containers of bytes, spans.
class bytes {
public:
    bytes() noexcept : data_(nullptr), size_(0) {}
    bytes(const void *data, std::size_t size) noexcept
        : data_(static_cast<const std::uint8_t *>(data)), size_(size) {}
    bytes(const char *text) noexcept : bytes(text, std::char_traits<char>::length(text)) {}
    bytes(const std::string &text) noexcept : bytes(text.data(), text.size()) {}
    bytes(const std::vector<std::uint8_t> &v) noexcept : bytes(v.data(), v.size()) {}
#ifdef GRUG_HAS_STRING_VIEW
    bytes(std::string_view text) noexcept : bytes(text.data(), text.size()) {}
#endif
#ifdef GRUG_HAS_SPAN
    bytes(std::span<const std::uint8_t> s) noexcept : bytes(s.data(), s.size()) {}
    bytes(std::span<const std::byte> s) noexcept : bytes(s.data(), s.size()) {}
#endif
    const std::uint8_t *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    const std::uint8_t *data_;
    std::size_t size_;
};

namespace detail {

/// Turns a failure into an exception.
inline std::int32_t check(std::int32_t status, const grug_error &e, std::size_t written = 0) {
    if (status >= 0) return status;
    if (status == GRUG_ENOMEM) throw std::bad_alloc();
    if (status == GRUG_ECANCELED) throw canceled(e, written);
    throw error(e, written);
}

/// Text as C has it, which would end at a NUL.
inline const char *c_text(const std::string &text) {
    if (text.find('\0') != std::string::npos) throw error(GRUG_EINVAL, "a path or a key has a NUL");
    return text.c_str();
}

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <class T, void (*Free)(T *)> using handle = std::unique_ptr<T, deleter<T, Free>>;

/// The functions of the caller that C calls.
struct hooks {
    std::function<bool(float)> progress;
    std::function<void(std::uint32_t, const std::string &)> log;
    std::exception_ptr thrown;

    static std::int32_t on_progress(void *user, float fraction) noexcept {
        hooks *h = static_cast<hooks *>(user);
        try {
            return h->progress(fraction) ? 0 : 1;
        } catch (...) {
            h->thrown = std::current_exception();
            return 1;
        }
    }
    static void on_log(void *user, std::uint32_t level, const char *text, std::size_t len) noexcept {
        try {
            static_cast<hooks *>(user)->log(level, std::string(text, len));
        } catch (...) { // there is nobody to tell
        }
    }
};

/// Frees a handle first and then, where it is the last, the functions that the library called while the handle lived;
/// also when another handle is assigned.
template <class T, void (*Free)(T *)> struct hooked_deleter {
    std::shared_ptr<detail::hooks> hooks;
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <class T, void (*Free)(T *)> using hooked_handle = std::unique_ptr<T, hooked_deleter<T, Free>>;

} // namespace detail

/// A cancellation token. Give get() to options; trigger() from any thread or from a signal handler.
class cancel {
public:
    cancel() : handle_(grug_cancel_new()) {
        if (!handle_) throw std::bad_alloc();
    }
    void trigger() const noexcept { grug_cancel_trigger(handle_.get()); }
    void reset() const noexcept { grug_cancel_reset(handle_.get()); }
    grug_cancel *get() const noexcept { return handle_.get(); }

#ifdef GRUG_HAS_STOP_TOKEN
    /// Triggers this token when a stop is requested, for as long as the result lives, which must be no longer than this
    /// object: `auto link = cancel.follow(stop_token);`
    auto follow(std::stop_token token) const {
        return std::make_unique<std::stop_callback<std::function<void()>>>(
            std::move(token), [handle = handle_.get()] { grug_cancel_trigger(handle); });
    }
#endif

private:
    detail::handle<grug_cancel, grug_cancel_free> handle_;
};

/// The devices of this machine that this build can use; the CPU is the first. Their names go into model_options.
inline std::vector<grug_device> devices() {
    std::vector<grug_device> all(grug_device_count());
    for (std::size_t i = 0; i < all.size(); i++) {
        all[i].size = sizeof(grug_device);
        grug_error e;
        detail::check(grug_device_get(static_cast<std::uint32_t>(i), &all[i], &e), e);
    }
    return all;
}

/// grug_model_options with its size set and zeros elsewhere: the defaults. The two functions, where one is set, stand in
/// place of the fields log, progress and user.
struct model_options : grug_model_options {
    model_options() noexcept : grug_model_options() { size = sizeof(grug_model_options); }
    /// Hears how far loading is, from 0 to 1, and says whether to go on. What it throws, load throws.
    std::function<bool(float)> on_progress;
    /// Receives a GRUG_LOG_ level and a line, from any thread, as long as the model or a session of it lives. What it
    /// throws is lost.
    std::function<void(std::uint32_t, const std::string &)> on_log;
};

/// grug_session_options with its size set and zeros elsewhere: the defaults.
struct session_options : grug_session_options {
    session_options() noexcept : grug_session_options() { size = sizeof(grug_session_options); }
};

/// grug_sampler_options with its size set and zeros elsewhere: greedy.
struct sampler_options : grug_sampler_options {
    sampler_options() noexcept : grug_sampler_options() { size = sizeof(grug_sampler_options); }
};

/// Immutable weights. Share it between threads; sessions keep what they need of it.
class model {
public:
    /// Loads a model file.
    static model load(const std::string &path, const model_options &options = model_options()) {
        return load(detail::c_text(path), options);
    }
    /// Loads a model file.
    static model load(const char *path, const model_options &options = model_options()) {
        return load_with(options, [=](const grug_model_options *o, grug_model **out, grug_error *e) {
            return grug_model_load_file(path, o, out, e);
        });
    }
    /// Loads a model file that is in memory, and copies it.
    static model load_copy(bytes data, const model_options &options = model_options()) {
        return load_buffer(data, GRUG_LOAD_COPY, options);
    }
    /// Loads a model file that is in memory, where it is: it must stay as it is until the last handle of the model and
    /// its sessions is gone.
    static model load_borrowed(bytes data, const model_options &options = model_options()) {
        return load_buffer(data, GRUG_LOAD_BORROW, options);
    }

    /// What the model is.
    grug_model_info info() const {
        grug_model_info info = grug_model_info();
        info.size = sizeof info;
        grug_error e;
        detail::check(grug_model_get_info(get(), &info, &e), e);
        return info;
    }
    /// A metadata entry; GRUG_ENOTFOUND where there is none.
    std::string metadata(const std::string &key) const {
        return text([&](char *to, std::size_t *len, grug_error *e) {
            return grug_model_get_metadata(get(), detail::c_text(key), to, len, e);
        });
    }
    /// All metadata.
    std::map<std::string, std::string> metadata() const {
        std::map<std::string, std::string> all;
        for (std::size_t i = 0;; i++) {
            std::string key;
            try {
                key = text([&](char *to, std::size_t *len, grug_error *e) {
                    return grug_model_get_metadata_key(get(), i, to, len, e);
                });
            } catch (const error &e) {
                if (e.status() == GRUG_ENOTFOUND) return all;
                throw;
            }
            all[key] = metadata(key);
        }
    }
    /// Compresses bytes losslessly, with a model that was loaded with GRUG_MODEL_PORTABLE; max_context and cancel matter.
    std::vector<std::uint8_t> compress(bytes data, const session_options &options = session_options()) const {
        std::vector<std::uint8_t> archive(GRUG_COMPRESS_BOUND(data.size()));
        std::size_t len = archive.size();
        grug_error e;
        detail::check(
            grug_compress(get(), &options, data.data(), data.size(), archive.data(), &len, &e), e);
        archive.resize(len);
        return archive;
    }
    /// The original of an archive; GRUG_ESPACE where that is longer than `most` bytes.
    std::vector<std::uint8_t> decompress(bytes archive, std::size_t most = std::size_t(1) << 30,
                                         const session_options &options = session_options()) const {
        std::vector<std::uint8_t> data;
        for (;;) {
            std::size_t len = data.size();
            grug_error e;
            const std::int32_t status =
                grug_decompress(get(), &options, archive.data(), archive.size(), data.data(), &len, &e);
            if (status != GRUG_ESPACE || len > most || !data.empty()) detail::check(status, e);
            data.resize(len);
            if (status >= 0) return data;
        }
    }
    /// The C handle, which stays with this object.
    grug_model *get() const noexcept { return handle_.get(); }

private:
    friend class session;

    model(grug_model *handle, std::shared_ptr<detail::hooks> hooks) noexcept : handle_(handle, {std::move(hooks)}) {}

    static model load_buffer(bytes data, std::uint32_t mode, const model_options &options) {
        return load_with(options, [=](const grug_model_options *o, grug_model **out, grug_error *e) {
            return grug_model_load_buffer(data.data(), data.size(), mode, o, out, e);
        });
    }

    template <class Call> static model load_with(const model_options &options, Call call) {
        grug_model_options c = options;
        std::shared_ptr<detail::hooks> hooks;
        if (options.on_log || options.on_progress) {
            hooks = std::make_shared<detail::hooks>();
            hooks->progress = options.on_progress;
            hooks->log = options.on_log;
            c.progress = options.on_progress ? detail::hooks::on_progress : nullptr;
            c.log = options.on_log ? detail::hooks::on_log : nullptr;
            c.user = hooks.get();
        }
        grug_model *handle = nullptr;
        grug_error e;
        const std::int32_t status = call(&c, &handle, &e);
        if (hooks && hooks->thrown) std::rethrow_exception(hooks->thrown);
        detail::check(status, e);
        return model(handle, std::move(hooks));
    }

    /// Asks for the length first, then for the text.
    template <class Call> static std::string text(Call call) {
        std::size_t len = 0;
        grug_error e;
        std::int32_t status = call(nullptr, &len, &e);
        std::string value(len, '\0');
        if (status == GRUG_ESPACE) status = call(&value[0], &len, &e);
        detail::check(status, e);
        return value;
    }

    detail::hooked_handle<grug_model, grug_model_free> handle_;
};

/// What a sampler may write. Immutable; samplers keep what they need of it.
class grammar {
public:
    /// Compiles a regular expression.
    static grammar regex(bytes source) { return grammar(GRUG_GRAMMAR_REGEX, source); }
    /// Compiles GBNF, the notation of llama.cpp.
    static grammar gbnf(bytes source) { return grammar(GRUG_GRAMMAR_GBNF, source); }
    /// Compiles a JSON Schema.
    static grammar json_schema(bytes source) { return grammar(GRUG_GRAMMAR_JSON_SCHEMA, source); }
    /// The C handle, which stays with this object: for sampler_options.
    grug_grammar *get() const noexcept { return handle_.get(); }

private:
    grammar(std::uint32_t kind, bytes source) {
        grug_grammar *handle = nullptr;
        grug_error e;
        const char *text = reinterpret_cast<const char *>(source.data());
        detail::check(grug_grammar_new(kind, text, source.size(), &handle, &e), e);
        handle_.reset(handle);
    }

    detail::handle<grug_grammar, grug_grammar_free> handle_;
};

/// Which bytes may come next, and whether the text may end here.
struct allowed {
    std::bitset<256> bytes;
    bool complete;
};

/// Picks bytes from logits.
class sampler {
public:
    explicit sampler(const sampler_options &options = sampler_options()) {
        grug_sampler *handle = nullptr;
        grug_error e;
        detail::check(grug_sampler_new(&options, &handle, &e), e);
        handle_.reset(handle);
    }
    /// As new, with this seed.
    void reset(std::uint64_t seed) {
        grug_error e;
        detail::check(grug_sampler_reset(get(), seed, &e), e);
    }
    /// One that goes on as this one would.
    sampler fork() const {
        grug_sampler *handle = nullptr;
        grug_error e;
        detail::check(grug_sampler_fork(get(), &handle, &e), e);
        return sampler(handle);
    }
    /// Picks a byte from logits that the caller may have edited.
    std::uint8_t pick(const std::array<float, 256> &logits) {
        grug_error e;
        return static_cast<std::uint8_t>(detail::check(grug_sampler_pick(get(), logits.data(), &e), e));
    }
    /// Takes a byte that was chosen elsewhere as if it had been picked here.
    void accept(std::uint8_t byte) {
        grug_error e;
        detail::check(grug_sampler_accept(get(), byte, &e), e);
    }
    /// What bias, grammar and UTF-8 allow next.
    grug::allowed allowed() const {
        std::uint8_t mask[32];
        grug_error e;
        grug::allowed result;
        result.complete = detail::check(grug_sampler_allowed(get(), mask, &e), e) != 0;
        for (std::size_t b = 0; b < 256; b++) result.bytes[b] = (mask[b >> 3] >> (b & 7) & 1) != 0;
        return result;
    }
    /// The C handle, which stays with this object.
    grug_sampler *get() const noexcept { return handle_.get(); }

private:
    explicit sampler(grug_sampler *handle) noexcept : handle_(handle) {}

    detail::handle<grug_sampler, grug_sampler_free> handle_;
};

/// Why generation paused.
enum class stop { capacity = GRUG_STOP_CAPACITY, end_byte = GRUG_STOP_END_BYTE, sequence = GRUG_STOP_SEQUENCE,
                  grammar = GRUG_STOP_GRAMMAR };

/// How many bytes generation wrote, and why it paused.
struct generated {
    std::size_t n;
    stop reason;
};

/// One stream of bytes.
class session {
public:
    explicit session(const model &m, const session_options &options = session_options())
        : handle_(nullptr, {m.handle_.get_deleter().hooks}) {
        grug_session *handle = nullptr;
        grug_error e;
        detail::check(grug_session_new(m.get(), &options, &handle, &e), e);
        handle_.reset(handle);
    }
    /// Empty again.
    void reset() {
        grug_error e;
        detail::check(grug_session_reset(get(), &e), e);
    }
    /// Bytes consumed: fed and generated. Any thread may ask at any time.
    std::uint64_t position() const noexcept { return grug_session_position(get()); }

    /// Feeds bytes.
    void feed(bytes data) {
        grug_error e;
        detail::check(grug_session_feed(get(), data.data(), data.size(), &e), e);
    }
    /// Picks the likeliest byte and feeds it.
    std::uint8_t next() { return next(nullptr); }
    /// Picks a byte and feeds it.
    std::uint8_t next(sampler &s) { return next(s.get()); }

    /// Fills a buffer as read(2) does. Where it fails on the way, error::written() says how far it came.
    generated generate(std::uint8_t *buffer, std::size_t capacity, sampler &s,
                       const std::vector<bytes> &stops = std::vector<bytes>()) {
        return generate(buffer, capacity, s.get(), c_stops(stops));
    }
    /// The same, greedy.
    generated generate(std::uint8_t *buffer, std::size_t capacity) {
        return generate(buffer, capacity, nullptr, std::vector<grug_bytes>());
    }
    /// Up to max_bytes bytes of text; less where a stop sequence or the end byte comes first.
    std::string generate(std::size_t max_bytes, sampler &s, const std::vector<bytes> &stops = std::vector<bytes>()) {
        const std::vector<grug_bytes> list = c_stops(stops);
        std::string text;
        stop reason = stop::capacity;
        while (reason == stop::capacity && text.size() < max_bytes) {
            const std::size_t had = text.size();
            text.resize(had + std::min<std::size_t>(max_bytes - had, 4096));
            const generated piece =
                generate(reinterpret_cast<std::uint8_t *>(&text[had]), text.size() - had, s.get(), list);
            text.resize(had + piece.n);
            reason = piece.reason;
        }
        return text;
    }
    /// Generates byte by byte for `sink`, a function of `bytes` that returns whether to go on.
    template <class Sink>
    generated stream(std::size_t max_bytes, sampler &s, Sink sink,
                     const std::vector<bytes> &stops = std::vector<bytes>()) {
        const std::vector<grug_bytes> list = c_stops(stops);
        generated all = {0, stop::capacity};
        bool more = true;
        while (more && all.n < max_bytes && all.reason == stop::capacity) {
            std::uint8_t byte;
            const generated one = generate(&byte, 1, s.get(), list);
            all.n += one.n;
            all.reason = one.reason;
            if (one.n > 0) more = sink(bytes(&byte, one.n));
        }
        return all;
    }
    /// Feeds bytes and returns how surprising they are together, in nats.
    double score(bytes data) { return score(data, nullptr); }
    /// The same; each byte's nats go into `nats`.
    double score(bytes data, std::vector<float> &nats) {
        nats.resize(data.size());
        return score(data, nats.data());
    }
    /// Logits of the next byte.
    std::array<float, 256> logits() {
        std::array<float, 256> logits;
        grug_error e;
        detail::check(grug_session_get_logits(get(), logits.data(), &e), e);
        return logits;
    }
    /// The vector that the logits are computed from: embedding_dim numbers of the model's info.
    std::vector<float> embedding(const model &m) {
        std::vector<float> vector(m.info().embedding_dim);
        grug_error e;
        detail::check(grug_session_get_embedding(get(), vector.data(), vector.size(), &e), e);
        return vector;
    }
    /// An independent session at this position.
    session fork() const {
        grug_session *handle = nullptr;
        grug_error e;
        detail::check(grug_session_fork(get(), &handle, &e), e);
        return session(handle, handle_.get_deleter().hooks);
    }
    /// From now on this token stops the session's work, also after the object is gone; a fork shares its origin's.
    void set_cancel(const cancel &c) { set_cancel(c.get()); }
    /// From now on nothing does.
    void clear_cancel() { set_cancel(nullptr); }
    /// Undoes the last n bytes, exactly; GRUG_EREWIND where that is too far, and nothing has changed.
    void rewind(std::uint64_t n) {
        grug_error e;
        detail::check(grug_session_rewind(get(), n, &e), e);
    }
    /// The session as bytes.
    std::vector<std::uint8_t> save() const {
        std::size_t len = 0;
        grug_error e;
        std::int32_t status = grug_session_save(get(), nullptr, &len, &e);
        std::vector<std::uint8_t> state(len);
        if (status == GRUG_ESPACE) status = grug_session_save(get(), state.data(), &len, &e);
        detail::check(status, e);
        return state;
    }
    /// Makes this session what a saved one was.
    void restore(bytes state) {
        grug_error e;
        detail::check(grug_session_restore(get(), state.data(), state.size(), &e), e);
    }
    /// The C handle, which stays with this object.
    grug_session *get() const noexcept { return handle_.get(); }

private:
    session(grug_session *handle, std::shared_ptr<detail::hooks> hooks) noexcept
        : handle_(handle, {std::move(hooks)}) {}

    void set_cancel(const grug_cancel *c) {
        grug_error e;
        detail::check(grug_session_set_cancel(get(), c, &e), e);
    }
    static std::vector<grug_bytes> c_stops(const std::vector<bytes> &stops) {
        std::vector<grug_bytes> list;
        for (const bytes &s : stops) list.push_back({s.data(), s.size()});
        return list;
    }
    std::uint8_t next(grug_sampler *s) {
        grug_error e;
        return static_cast<std::uint8_t>(detail::check(grug_session_next(get(), s, &e), e));
    }
    generated generate(std::uint8_t *buffer, std::size_t capacity, grug_sampler *s,
                       const std::vector<grug_bytes> &stops) {
        std::size_t n = 0;
        grug_error e;
        const std::int32_t reason =
            grug_session_generate(get(), s, stops.data(), stops.size(), buffer, capacity, &n, &e);
        detail::check(reason, e, n);
        return generated{n, static_cast<stop>(reason)};
    }
    double score(bytes data, float *nats) {
        double total = 0;
        grug_error e;
        detail::check(grug_session_score(get(), data.data(), data.size(), nats, &total, &e), e);
        return total;
    }

    detail::hooked_handle<grug_session, grug_session_free> handle_; // with the model's functions
};

/// One step for many distinct sessions of one model: each one's byte, or the negative status of what went wrong there,
/// which stops no other. `samplers` and `input` are empty or as many; a sampler of nullptr is greedy, and an input of 0
/// or more is fed instead of a picked byte.
inline std::vector<std::int32_t> next_batch(const std::vector<session *> &sessions,
                                            const std::vector<sampler *> &samplers = std::vector<sampler *>(),
                                            const std::vector<std::int32_t> &input = std::vector<std::int32_t>()) {
    const std::size_t n = sessions.size();
    if ((!samplers.empty() && samplers.size() != n) || (!input.empty() && input.size() != n))
        throw error(GRUG_EINVAL, "samplers and input must be as many as the sessions, or none");
    std::vector<grug_session *> handles;
    std::vector<grug_sampler *> picks;
    for (session *s : sessions) handles.push_back(s->get());
    for (sampler *s : samplers) picks.push_back(s == nullptr ? nullptr : s->get());
    std::vector<std::int32_t> bytes(n);
    grug_error e;
    detail::check(grug_session_next_batch(handles.data(), picks.empty() ? nullptr : picks.data(),
                                          input.empty() ? nullptr : input.data(), n, bytes.data(), &e),
                  e);
    return bytes;
}

} // namespace grug
#endif // GRUG_HPP
