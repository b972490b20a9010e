// calculator: a small language model learns to calculate, by imitation and then by reinforcement learning.
#include <cstdio>
#include <exception>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "options.hpp"
#include "run.hpp"

int main(int argc, char** argv) {
    calculator::settings settings;
    CLI::App app(
        "A small language model learns to calculate. It imitates a few worked examples, and is then trained by "
        "reinforcement learning with verifiable rewards: it tries, and a program checks what it tried.");
    calculator::add_options(app, settings);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }
    try {
        calculator::fill_in(app, settings);
        calculator::validate(settings);
        return calculator::run(settings);
    } catch (const calculator::usage_error& e) {
        fmt::print(stderr, "calculator: {}\n", e.what());
        return 2;
    } catch (const std::exception& e) {
        fmt::print(stderr, "calculator: {}\n", e.what());
        return 1;
    }
}
