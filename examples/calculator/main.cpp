// calculator: a small language model learns to calculate.
#include <exception>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "run.hpp"

int main(int argc, char** argv) {
    calculator::settings s;
    CLI::App app("A small language model learns to calculate: it imitates a few worked examples and is then trained by "
                 "reinforcement learning with verifiable rewards.");
    app.add_option("--recipe", s.method.name);
    app.add_option("--steps", s.steps);
    app.add_option("--groups", s.groups);
    app.add_option("--group-size", s.group_size);
    app.add_option("--inner-steps", s.inner_steps);
    app.add_option("--kl", s.method.kl);
    app.add_option("--temperature", s.temperature);
    app.add_option("--learning-rate", s.learning_rate);
    app.add_flag("--dynamic-sampling", s.dynamic_sampling);
    app.add_option("--seed", s.seed);
    app.add_option("--threads", s.threads);
    app.add_option("--sft-steps", s.sft_steps);
    app.add_option("--sft-examples", s.sft_examples);
    app.add_option("--sft-batch", s.sft_batch);
    app.add_option("--sft-learning-rate", s.sft_learning_rate);
    app.add_option("--layers", s.model.layers);
    app.add_option("--heads", s.model.heads);
    app.add_option("--width", s.model.width);
    app.add_option("--gsm8k", s.gsm8k);
    app.add_option("--init", s.init);
    app.add_option("--out", s.out);
    app.add_option("--largest-term", s.task.largest_term);
    app.add_option("--largest-value", s.task.largest_value);
    app.add_option("--largest-factor", s.task.largest_factor);
    app.add_option("--lengths", s.task.lengths);
    app.add_option("--operations", s.task.operations);
    app.add_option("--parentheses", s.task.parentheses);
    app.add_option("--held-out", s.held_out);
    app.add_option("--samples", s.samples);
    CLI11_PARSE(app, argc, argv);
    try {
        return calculator::run(s).go();
    } catch (const std::exception& e) {
        fmt::print(stderr, "calculator: {}\n", e.what());
        return 1;
    }
}
