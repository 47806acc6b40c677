// The C++ API: ownership by moves, exceptions, text in and out. api MODEL MODEL_WITH_END_BYTE
#include <grug.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);  \
            std::exit(1);                                                                 \
        }                                                                                 \
    } while (0)

template <class Body> static void fails(grug_status status, const char *text, Body body) {
    try {
        body();
    } catch (const grug::error &e) {
        if (e.status() == status && std::strstr(e.what(), text) != nullptr) return;
        std::fprintf(stderr, "expected %s with \"%s\", got %s: %s\n", grug_status_name(status), text,
                     e.status_name(), e.what());
        std::exit(1);
    }
    std::fprintf(stderr, "expected %s with \"%s\", nothing was thrown\n", grug_status_name(status), text);
    std::exit(1);
}

static grug::sampler warm(std::uint64_t seed) {
    grug::sampler_options options;
    options.temperature = 1;
    options.seed = seed;
    return grug::sampler(options);
}

static void models(const char *path) {
    fails(GRUG_EIO, "no-such-model", [] { grug::model::load("no-such-model"); });
    grug::model_options cuda;
    cuda.device = "cuda:9";
    fails(GRUG_EDEVICE, "cuda:9", [&] { grug::model::load(path, cuda); });

    grug::model model = grug::model::load(std::string(path));
    CHECK(model.info().context_bytes == 32);
    CHECK(model.metadata("note") == "for tests");
    fails(GRUG_ENOTFOUND, "nonsense", [&] { model.metadata("nonsense"); });
    const std::map<std::string, std::string> metadata = model.metadata();
    CHECK(metadata.size() >= 2 && metadata.at("note") == "for tests");

    std::ifstream file(path, std::ios::binary);
    std::string data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    grug::model copied = grug::model::load_copy(data), borrowed = grug::model::load_borrowed(data);
    grug::session a(model), b(copied), c(borrowed);
    CHECK(a.logits() == b.logits() && a.logits() == c.logits());
    fails(GRUG_EFORMAT, "model buffer", [&] { grug::model::load_copy("no model"); });

    // A moved-from handle is null; a session outlives the object that its model came from.
    grug::model moved = std::move(model);
    CHECK(model.get() == nullptr && moved.get() != nullptr);
    fails(GRUG_EINVAL, "NULL", [&] { model.info(); });
    grug::session outlives(moved);
    moved = std::move(copied);
    outlives.feed("text");
    CHECK(outlives.position() == 4);
}

static void sessions(const grug::model &model) {
    grug::session session(model);
    grug::sampler sampler = warm(5);
    session.feed("ab");
    session.feed(std::string("cd"));
    session.feed(std::vector<std::uint8_t>{'e', 'f'});
#ifdef GRUG_HAS_STRING_VIEW
    session.feed(std::string_view("gh"));
#else
    session.feed("gh");
#endif
    CHECK(session.position() == 8);
    const std::string text = session.generate(50, sampler);
    CHECK(text.size() == 50 && session.position() == 58);

    session.reset();
    sampler.reset(5);
#ifdef GRUG_HAS_SPAN
    const std::array<std::byte, 8> letters = {std::byte('a'), std::byte('b'), std::byte('c'), std::byte('d'),
                                              std::byte('e'), std::byte('f'), std::byte('g'), std::byte('h')};
    session.feed(std::span<const std::byte>(letters));
#else
    session.feed("abcdefgh");
#endif
    std::uint8_t buffer[50];
    const grug::generated first = session.generate(buffer, 20, sampler);
    CHECK(first.n == 20 && first.reason == grug::stop::capacity);
    for (int i = 20; i < 40; i++) buffer[i] = session.next(sampler);
    for (int i = 40; i < 50; i++) {
        buffer[i] = sampler.pick(session.logits());
        session.feed(grug::bytes(&buffer[i], 1));
    }
    CHECK(std::memcmp(buffer, text.data(), 50) == 0);

    // A stop sequence, streamed, and a sink that has enough.
    const std::string wanted = text.substr(10, 3);
    const std::size_t end = text.find(wanted) + 3;
    session.reset();
    sampler.reset(5);
    session.feed("abcdefgh");
    std::string streamed;
    const grug::generated stopped = session.stream(50, sampler, [&](grug::bytes piece) {
        streamed.append(reinterpret_cast<const char *>(piece.data()), piece.size());
        return true;
    }, {grug::bytes("\xff\xff\xff"), grug::bytes(wanted)});
    CHECK(stopped.reason == grug::stop::sequence && stopped.n == end && streamed == text.substr(0, end));
    CHECK(session.stream(50, sampler, [](grug::bytes) { return false; }).n == 1);

    std::vector<float> nats;
    session.reset();
    const double total = session.score("score me", nats);
    double sum = 0;
    for (float n : nats) sum += static_cast<double>(n);
    CHECK(nats.size() == 8 && std::fabs(total - sum) < 1e-4 * sum);
    session.reset();
    CHECK(std::fabs(session.score("score me") - total) < 1e-12);

    grug::session_options strict;
    strict.overflow = GRUG_OVERFLOW_ERROR;
    grug::session small(model, strict);
    fails(GRUG_EFULL, "context", [&] { small.feed(std::string(33, 'x')); });
    fails(GRUG_EINVAL, "temperature", [] {
        grug::sampler_options options;
        options.temperature = -1;
        grug::sampler bad(options);
    });
}

static void state(const grug::model &model) {
    grug::session session(model);
    grug::sampler sampler = warm(9);
    session.feed("once upon");
    const std::vector<std::uint8_t> saved = session.save();
    grug::session copy = session.fork(), restored(model);
    grug::sampler same = sampler.fork(), again = sampler.fork();
    restored.restore(saved);
    const std::string text = session.generate(20, sampler);
    CHECK(copy.generate(20, same) == text && restored.generate(20, again) == text);
    session.rewind(20);
    CHECK(session.position() == 9);
    sampler.reset(9);
    CHECK(session.generate(20, sampler) == text);
    fails(GRUG_EREWIND, "", [&] { session.rewind(1000); });
    fails(GRUG_EFORMAT, "saved session", [&] { session.restore("no state"); });
    CHECK(session.embedding(model).size() == model.info().embedding_dim);
}

static void cancellation(const grug::model &model) {
    grug::cancel cancel;
    grug::session_options options;
    options.cancel = cancel.get();
    grug::session session(model, options);
    std::vector<std::uint8_t> buffer(1u << 24);
    std::size_t written = 0;
    bool stopped = false;
    std::thread helper([&] {
        while (session.position() == 0) std::this_thread::yield();
        cancel.trigger();
    });
    session.feed("x");
    try {
        session.generate(buffer.data(), buffer.size());
    } catch (const grug::canceled &e) {
        stopped = true;
        written = e.written();
        CHECK(e.status() == GRUG_ECANCELED);
    }
    helper.join();
    CHECK(stopped && written < buffer.size() && session.position() == 1 + written);
    cancel.reset();
    session.feed("y");

#ifdef GRUG_HAS_STOP_TOKEN
    {
        std::stop_source source;
        const auto link = cancel.follow(source.get_token());
        session.feed("z");
        source.request_stop();
        fails(GRUG_ECANCELED, "cancel", [&] { session.feed("!"); });
    }
    cancel.reset();
    std::stop_source other;
    cancel.follow(other.get_token()); // the link is gone at once
    other.request_stop();
    session.feed("!");
#endif
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    models(argv[1]);
    const grug::model model = grug::model::load(argv[1]);
    sessions(model);
    state(model);
    cancellation(model);

    grug::session ends(grug::model::load(argv[2]));
    grug::sampler sampler = warm(1);
    std::vector<std::uint8_t> buffer(20000);
    const grug::generated document = ends.generate(buffer.data(), buffer.size(), sampler);
    CHECK(document.reason == grug::stop::end_byte && buffer[document.n - 1] == 10);
    std::puts("C++ API: all passed");
    return 0;
}
