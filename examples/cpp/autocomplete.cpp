// Suggests how a text may go on, as an editor would: autocomplete MODEL
//
// A line that you type is added to the text. An empty line takes the first suggestion. "<12" takes the last 12 bytes back.
// Each suggestion is a fork of the session, so the text itself is never computed twice; taking bytes back is a rewind.
//
//   cargo build --release
//   c++ -std=c++17 -Iinclude examples/cpp/autocomplete.cpp -Ltarget/release -lgrug -Wl,-rpath,$PWD/target/release
#include <grug.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

// The rest of the line, in three versions: the likeliest one, and two that are drawn.
static std::vector<std::string> suggest(const grug::session &text) {
    std::vector<std::string> suggestions;
    for (std::uint64_t seed = 0; seed < 3; seed++) {
        grug::sampler_options options;
        options.temperature = seed == 0 ? 0.0f : 0.7f;
        options.seed = seed;
        options.flags = GRUG_SAMPLE_UTF8;
        grug::sampler sampler(options);
        grug::session fork = text.fork();
        suggestions.push_back(fork.generate(60, sampler, {"\n"}));
    }
    return suggestions;
}

int main(int argc, char **argv) {
    if (argc != 2 || argv[1][0] == '-') {
        std::cerr << "usage: autocomplete MODEL\n"
                     "  a line is added to the text; an empty one takes the first suggestion; <12 takes 12 bytes back\n";
        return 2;
    }
    try {
        const grug::model model = grug::model::load(argv[1]);
        grug::session text(model);
        std::vector<std::string> suggestions;
        std::string line;
        while (std::cout << "> " << std::flush && std::getline(std::cin, line)) {
            if (line.size() > 1 && line[0] == '<') {
                try {
                    text.rewind(std::strtoull(line.c_str() + 1, nullptr, 10));
                } catch (const grug::error &e) { // nothing has changed
                    std::cout << "  " << e.what() << '\n';
                }
            } else if (line.empty() && !suggestions.empty()) {
                text.feed(suggestions[0]);
            } else {
                text.feed(line);
            }
            suggestions = suggest(text);
            std::cout << "  at byte " << text.position() << ":\n";
            for (const std::string &suggestion : suggestions) {
                const bool whole = !suggestion.empty() && suggestion.back() == '\n';
                std::cout << "  | " << suggestion << (whole ? "" : "\n");
            }
        }
        std::cout << '\n';
    } catch (const std::exception &e) {
        std::cerr << "autocomplete: " << e.what() << '\n';
        return 1;
    }
}
