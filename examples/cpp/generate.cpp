// Streams text from a model: generate MODEL [PROMPT [BYTES]]
//
//   cargo build --release
//   c++ -std=c++17 -Iinclude examples/cpp/generate.cpp -Ltarget/release -lgrug -Wl,-rpath,$PWD/target/release -o generate
#include <grug.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>

int main(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') {
        std::cerr << "usage: generate MODEL [PROMPT [BYTES]]\n";
        return 2;
    }
    try {
        const grug::model model = grug::model::load(argv[1]);
        grug::session session(model);
        grug::sampler_options warm;
        warm.temperature = 0.8f;
        grug::sampler sampler(warm);

        const std::string prompt = argc > 2 ? argv[2] : "";
        const std::size_t length = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 400;
        std::cout << prompt;
        session.feed(prompt);
        session.stream(length, sampler, [](grug::bytes piece) {
            std::cout.write(reinterpret_cast<const char *>(piece.data()), static_cast<std::streamsize>(piece.size()));
            return static_cast<bool>(std::cout.flush());
        });
        std::cout << std::endl;
        if (!std::cout) throw std::runtime_error("cannot write the output");
    } catch (const std::exception &e) {
        std::cerr << "generate: " << e.what() << '\n';
        return 1;
    }
}
