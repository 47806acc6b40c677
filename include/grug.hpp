// grug.hpp - C++ API of libgrug: grug.h with RAII and exceptions. Header-only; C++11, more with C++17 and C++20.
//
// Handles are move-only and free themselves. What grug.h says of threads, ownership and determinism holds here as well.
// Failures are exceptions of type grug::error with the status and the message of the C API; running out of memory is
// std::bad_alloc. A moved-from handle is null, and using it is an error with GRUG_EINVAL.
#ifndef GRUG_HPP
#define GRUG_HPP

#include <grug.h>

#include <array>
#include <cstddef>
#include <cstdint>
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
#include <functional>
#include <stop_token>
#define GRUG_HAS_STOP_TOKEN 1
#endif
#endif

namespace grug {

/// A call of the C API failed.
class error : public std::runtime_error {
public:
    explicit error(const grug_error &e) : std::runtime_error(e.message), status_(e.status) {}
    error(grug_status status, const char *message) : std::runtime_error(message), status_(status) {}
    /// A GRUG_E status.
    grug_status status() const noexcept { return status_; }
    /// Its name, such as "GRUG_EIO".
    const char *status_name() const noexcept { return grug_status_name(status_); }

private:
    grug_status status_;
};

/// A cancellation token was triggered. What was done until then is kept.
class canceled : public error {
public:
    canceled(const grug_error &e, std::size_t written) : error(e), written_(written) {}
    /// Bytes that generate() wrote into the buffer.
    std::size_t written() const noexcept { return written_; }

private:
    std::size_t written_;
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
    throw error(e);
}

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <class T, void (*Free)(T *)> using handle = std::unique_ptr<T, deleter<T, Free>>;

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

/// grug_model_options with its size set and zeros elsewhere: the defaults.
struct model_options : grug_model_options {
    model_options() noexcept : grug_model_options() { size = sizeof(grug_model_options); }
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
        return load(path.c_str(), options);
    }
    /// Loads a model file.
    static model load(const char *path, const model_options &options = model_options()) {
        grug_model *handle = nullptr;
        grug_error e;
        detail::check(grug_model_load_file(path, &options, &handle, &e), e);
        return model(handle);
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
            return grug_model_get_metadata(get(), key.c_str(), to, len, e);
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
    /// The C handle, which stays with this object.
    grug_model *get() const noexcept { return handle_.get(); }

private:
    explicit model(grug_model *handle) noexcept : handle_(handle) {}

    static model load_buffer(bytes data, std::uint32_t mode, const model_options &options) {
        grug_model *handle = nullptr;
        grug_error e;
        detail::check(grug_model_load_buffer(data.data(), data.size(), mode, &options, &handle, &e), e);
        return model(handle);
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

    detail::handle<grug_model, grug_model_free> handle_;
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
    explicit session(const model &m, const session_options &options = session_options()) {
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

    /// Fills a buffer as read(2) does. Where a token stops it, canceled::written() says how far it came.
    generated generate(std::uint8_t *buffer, std::size_t capacity, sampler &s,
                       const std::vector<bytes> &stops = std::vector<bytes>()) {
        return generate(buffer, capacity, s.get(), stops);
    }
    /// The same, greedy.
    generated generate(std::uint8_t *buffer, std::size_t capacity) {
        return generate(buffer, capacity, nullptr, std::vector<bytes>());
    }
    /// Up to max_bytes bytes of text; less where a stop sequence or the end byte comes first.
    std::string generate(std::size_t max_bytes, sampler &s, const std::vector<bytes> &stops = std::vector<bytes>()) {
        std::string text;
        stream(max_bytes, s, [&](bytes piece) {
            text.append(reinterpret_cast<const char *>(piece.data()), piece.size());
            return true;
        }, stops);
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
        return session(handle);
    }
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
    explicit session(grug_session *handle) noexcept : handle_(handle) {}

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
                       const std::vector<bytes> &stops) {
        return generate(buffer, capacity, s, c_stops(stops));
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

    detail::handle<grug_session, grug_session_free> handle_;
};

} // namespace grug
#endif // GRUG_HPP
