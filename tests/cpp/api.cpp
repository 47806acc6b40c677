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
    CHECK(!grug::devices().empty() && std::strcmp(grug::devices()[0].name, "cpu") == 0);
    fails(GRUG_EIO, "no-such-model", [] { grug::model::load("no-such-model"); });
    fails(GRUG_EINVAL, "NUL", [] { grug::model::load(std::string("no-such-model\0.old", 18)); });
    grug::model_options cuda;
    cuda.device = "cuda:9";
    fails(GRUG_EDEVICE, "cuda:9", [&] { grug::model::load(path, cuda); });

    grug::model model = grug::model::load(std::string(path));
    CHECK(model.info().context_bytes == 32);
    CHECK(model.metadata("note") == "for tests");
    fails(GRUG_EINVAL, "NUL", [&] { model.metadata(std::string("note\0", 5)); });
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
    CHECK(session.generate(4100, sampler).size() == 4100); // more than is asked for at once

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
    session.clear_cancel();
    session.feed("x");
    session.set_cancel(cancel);
    fails(GRUG_ECANCELED, "cancel", [&] { session.feed("!"); });
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

static void grammars(const grug::model &model) {
    fails(GRUG_EFORMAT, "", [] { grug::grammar::regex("("); });
    fails(GRUG_EFORMAT, "root", [] { grug::grammar::gbnf("a ::= \"b\""); });
    fails(GRUG_EUNSUPPORTED, "multipleOf", [] { grug::grammar::json_schema("{\"multipleOf\": 3}"); });
    grug::session session(model);
    grug::sampler_options options;
    options.temperature = 1;
    {
        const grug::grammar grammar = grug::grammar::regex("[0-9]{3}-(yes|no)");
        options.grammar = grammar.get();
        grug::sampler sampler(options);
        options.grammar = nullptr;
        sampler.accept('7');
        fails(GRUG_EDEADEND, "byte 45", [&] { sampler.accept('-'); });
        const grug::allowed next = sampler.allowed();
        CHECK(!next.complete && next.bytes.count() == 10 && next.bytes['0'] && !next.bytes['a']);
        const std::string text = session.generate(100, sampler);
        CHECK(text.substr(2) == "-yes" || text.substr(2) == "-no");
        CHECK(sampler.allowed().complete && sampler.allowed().bytes.none());
    }
    std::array<float, 256> bias = {};
    bias.fill(-INFINITY);
    bias['x'] = 0;
    options.bias = bias.data();
    grug::sampler only(options);
    CHECK(session.generate(5, only) == "xxxxx");
}

static void compression(const char *path, const grug::model &ordinary) {
    grug::model_options options;
    options.flags = GRUG_MODEL_PORTABLE;
    const grug::model model = grug::model::load(path, options);
    grug::session session(model);
    grug::sampler greedy;
    const std::string text = session.generate(300, greedy);
    const std::vector<std::uint8_t> archive = model.compress(text), back = model.decompress(archive);
    CHECK(archive.size() < 200 && std::string(back.begin(), back.end()) == text);
    CHECK(model.decompress(model.compress("")).empty());
    fails(GRUG_ESPACE, "300", [&] { model.decompress(archive, 299); });
    fails(GRUG_EFORMAT, "archive", [&] { model.decompress("no archive"); });
    fails(GRUG_EUNSUPPORTED, "portable", [&] { ordinary.compress(text); });
}

static void hooks(const char *path) {
    std::vector<std::string> lines;
    float last = -1;
    grug::model_options options;
    options.on_log = [&](std::uint32_t level, const std::string &line) {
        CHECK(level >= GRUG_LOG_ERROR && level <= GRUG_LOG_DEBUG);
        lines.push_back(line);
    };
    options.on_progress = [&](float fraction) {
        CHECK(fraction >= last);
        last = fraction;
        return true;
    };
    {
        grug::model model = grug::model::load(path, options);
        CHECK(last >= 1 && lines.size() == 2);
        grug::session session(model);
        CHECK(lines.size() == 3 && lines[2].find("session") == 0);
    }
    options.on_progress = [](float) { return false; };
    fails(GRUG_ECANCELED, "progress", [&] { grug::model::load(path, options); });
    options.on_progress = [](float) -> bool { throw std::runtime_error("enough"); };
    options.on_log = [](std::uint32_t, const std::string &) { throw std::runtime_error("nobody hears this"); };
    try {
        grug::model::load(path, options);
        CHECK(false);
    } catch (const std::runtime_error &e) {
        CHECK(std::strcmp(e.what(), "enough") == 0);
    }
    options.on_progress = nullptr;
    grug::model::load(path, options);
    // The functions live as long as a handle that may call them, and no longer; also where another handle is assigned.
    std::shared_ptr<int> held = std::make_shared<int>(0);
    const std::weak_ptr<int> seen = held;
    options.on_log = [held](std::uint32_t, const std::string &) { ++*held; };
    held.reset();
    {
        grug::model model = grug::model::load(path, options);
        options.on_log = nullptr;
        grug::session session = grug::session(model).fork();
        const int before = *seen.lock();
        CHECK(before > 0);
        model = grug::model::load(path, options);
        CHECK(!seen.expired());
        session = grug::session(model);
        CHECK(seen.expired());
        session.feed("on");
    }
}

static void batches(const grug::model &model) {
    grug::session a(model), b(model), c(model), alone(model);
    grug::sampler picks = warm(3), same = warm(3);
    a.feed("same");
    b.feed("other");
    alone.feed("same");
    for (int i = 0; i < 20; i++) {
        const std::vector<std::int32_t> bytes = grug::next_batch({&a, &b, &c}, {&picks, nullptr, nullptr}, {-1, -1, 'x'});
        CHECK(bytes.size() == 3 && bytes[0] == alone.next(same) && bytes[1] >= 0 && bytes[2] == 'x');
    }
    CHECK(c.position() == 20 && grug::next_batch({&a, &b, &c}).size() == 3 && grug::next_batch({}).empty());
    fails(GRUG_EBUSY, "session 1", [&] { grug::next_batch({&a, &a}); });
    fails(GRUG_EINVAL, "as many", [&] { grug::next_batch({&a, &b}, {&picks}); });
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    models(argv[1]);
    hooks(argv[1]);
    const grug::model model = grug::model::load(argv[1]);
    sessions(model);
    state(model);
    cancellation(model);
    grammars(model);
    compression(argv[1], model);
    batches(model);

    grug::session ends(grug::model::load(argv[2]));
    grug::sampler sampler = warm(1);
    std::vector<std::uint8_t> buffer(20000);
    const grug::generated document = ends.generate(buffer.data(), buffer.size(), sampler);
    CHECK(document.reason == grug::stop::end_byte && buffer[document.n - 1] == 10);
    std::puts("C++ API: all passed");
    return 0;
}
