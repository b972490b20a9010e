// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "run.hpp"

namespace calculator {

constexpr std::int64_t gsm8k_sft_steps = 1500;

namespace detail {

// Limited on one side; CLI11's own name the largest double in what they say.
inline CLI::Validator above(bool zero_too, const char* what, const char* kind) {
    const auto complaint = [zero_too, what](const std::string& text) {
        double x = 0;
        const bool fine = CLI::detail::lexical_cast(text, x) && (x > 0 || (zero_too && x == 0));
        return fine ? std::string() : fmt::format("{} is not {}", text, what);
    };
    return CLI::Validator(complaint, kind, kind);
}
inline CLI::Validator positive() { return above(false, "a number above 0", "POSITIVE"); }
inline CLI::Validator not_negative() { return above(true, "0 or a number above 0", "NONNEGATIVE"); }

inline void task_options(CLI::App& app, settings& s) {
    const std::string group = "The task";
    app.add_option(
           "--gsm8k", s.gsm8k,
           "Take the expressions of GSM8K's solutions instead of generated ones: the folder with train.jsonl and "
           "test.jsonl, or the first of them")
        ->group(group);
    app.add_option("--lengths", s.task.lengths, "Generated: shares of problems of 1, 2, 3 and 4 operations")
        ->group(group);
    app.add_option("--operations", s.task.operations, "Generated: shares of + - * /")->group(group);
    app.add_option("--parentheses", s.task.parentheses, "Generated: share with parentheses, of 2 or more operations")
        ->group(group);
    app.add_option("--largest-term", s.task.largest_term, "Generated: largest number in sums and differences")
        ->group(group);
    app.add_option("--largest-factor", s.task.largest_factor, "Generated: largest factor, divisor and quotient")
        ->group(group);
    app.add_option("--largest-value", s.task.largest_value, "Generated: largest result on the way")->group(group);
}

inline void model_group(CLI::App& app, settings& s) {
    const std::string group = "The model";
    app.add_option("--layers", s.model.layers, "Blocks of attention and perceptron")
        ->check(CLI::Range(1, 100))
        ->group(group);
    app.add_option("--width", s.model.width, "Numbers that stand for a token")
        ->check(CLI::Range(4, 8192))
        ->group(group);
    app.add_option("--heads", s.model.heads, "Heads of attention; they share the width")
        ->check(CLI::Range(1, 128))
        ->group(group);
    app.add_option("--context", s.model.context, "Longest prompt and response together; 0: what the problems need")
        ->check(CLI::Range(0, 4096))
        ->group(group);
}

inline void sft_options(CLI::App& app, settings& s) {
    const std::string group = "Imitation (SFT)";
    app.add_option("--sft-examples", s.sft_examples, "Worked examples, the first ones of the training stream")
        ->check(positive())
        ->group(group);
    app.add_option("--sft-steps", s.sft_steps,
                   fmt::format("Updates; with --gsm8k, whose expressions are harder, {}", gsm8k_sft_steps))
        ->check(not_negative())
        ->group(group);
    app.add_option("--sft-batch", s.sft_batch, "Examples an update")->check(positive())->group(group);
    app.add_option("--sft-learning-rate", s.sft_learning_rate, "Learning rate, warmed up and then constant")
        ->check(positive())
        ->group(group);
    app.add_option("--init", s.init, "Begin with the model of this checkpoint instead")->group(group);
}

inline void method_group(CLI::App& app, settings& s) {
    const std::string group = "Reinforcement learning: the method";
    app.add_option(
           "--recipe", s.method.name,
           "Any of the library's recipes: grpo, dapo, gspo, rloo, ppo, ...; rft and dpo learn from samples of the "
           "SFT model, online_rft and all others from their own, sft and dft from worked solutions")
        ->group(group);
    const std::vector<std::pair<std::string, supervision>> kinds{{"outcome", supervision::outcome},
                                                                 {"process", supervision::process}};
    app.add_option("--supervision", s.method.by,
                   "outcome: the answer is rewarded; process: each step is checked and rewarded")
        ->transform(CLI::CheckedTransformer(kinds, CLI::ignore_case))
        ->default_str("outcome")
        ->group(group);
    app.add_option(
           "--kl", s.method.kl,
           "Coefficient of the KL to the reference, where the recipe has it or else in the loss; for dpo its beta "
           "(not given: the recipe's own)")
        ->check(not_negative())
        ->default_str("")
        ->group(group);
    app.add_option("--reference-refresh", s.reference_refresh,
                   "Iterative GRPO: the reference becomes the policy every so many steps; 0: never")
        ->check(not_negative())
        ->group(group);
    app.add_option("--critic", s.method.critic, "Weight of the value loss of ppo and vapo")
        ->check(not_negative())
        ->group(group);
    app.add_flag("--dynamic-sampling", s.dynamic_sampling,
                 "Prompts whose responses are all right or all wrong are replaced by others, up to 3 times (DAPO)")
        ->group(group);
    app.add_option("--overlong", s.overlong,
                   "Responses within so many tokens of the limit lose reward, up to 1 at it (DAPO); 0: none do")
        ->check(not_negative())
        ->group(group);
}

inline void loop_options(CLI::App& app, settings& s) {
    const std::string group = "Reinforcement learning: the loop";
    app.add_option("--steps", s.steps, "Batches of samples")->check(not_negative())->group(group);
    app.add_option("--groups", s.groups, "Prompts a step")->check(positive())->group(group);
    app.add_option("--group-size", s.group_size, "Responses to each prompt")->check(positive())->group(group);
    app.add_option("--inner-steps", s.inner_steps, "Updates for each batch")->check(positive())->group(group);
    app.add_option("--max-samples", s.max_samples, "Stop after so many responses; 0: after --steps")
        ->check(not_negative())
        ->group(group);
    app.add_option("--temperature", s.temperature, "Of sampling, and of every log-probability")
        ->check(positive())
        ->group(group);
    app.add_option("--learning-rate", s.learning_rate, "Learning rate, warmed up and then down to 0 on half a cosine")
        ->check(positive())
        ->group(group);
    app.add_option("--warm-up", s.warm_up, "Steps until the full learning rate")
        ->check(not_negative())
        ->group(group);
    app.add_option("--longest-gradient", s.longest_gradient, "Gradients are cut to this norm")
        ->check(positive())
        ->group(group);
    app.add_flag("--guard,!--no-guard", s.guard, "Go back to good weights at half the rate when training collapses")
        ->group(group);
}

inline void run_options(CLI::App& app, settings& s) {
    const std::string evaluation = "Evaluation";
    app.add_option("--held-out", s.held_out, "Held-out problems before and after")
        ->check(positive())
        ->group(evaluation);
    app.add_option("--samples", s.samples, "Samples of each for pass@k and maj@k")
        ->check(positive())
        ->group(evaluation);
    app.add_option("--evaluate-every", s.evaluate_every, "Steps between greedy evaluations for the curve; 0: none")
        ->check(not_negative())
        ->group(evaluation);
    app.add_option("--curve-problems", s.curve_problems, "Held-out problems of those")
        ->check(positive())
        ->group(evaluation);
    const std::string group = "The run";
    app.add_option("--out", s.out, "Folder for config.json, metrics.csv, results.json, curves.svg, checkpoint.bin")
        ->group(group);
    app.add_option("--seed", s.seed, "The same seed gives the same numbers, with any number of threads")->group(group);
    app.add_option("--threads", s.threads, "Threads")->check(CLI::Range(1, 1024))->group(group);
    app.add_option("--save-every", s.save_every, "Steps between checkpoints")->check(positive())->group(group);
    auto* const resume = app.add_flag("--resume", s.resume, "Go on with the run in --out")->group(group);
    app.add_flag("--force", s.force, "Replace the run in --out")->excludes(resume)->group(group);
}

}  // namespace detail

inline void add_options(CLI::App& app, settings& s) {
    app.option_defaults()->always_capture_default();
    detail::task_options(app, s);
    detail::model_group(app, s);
    detail::sft_options(app, s);
    detail::method_group(app, s);
    detail::loop_options(app, s);
    detail::run_options(app, s);
}

// Defaults that depend on other options.
inline void fill_in(const CLI::App& app, settings& s) {
    if (!s.gsm8k.empty() && app.get_option("--sft-steps")->empty()) s.sft_steps = gsm8k_sft_steps;
}

// What no single option can be checked for.
inline void validate(const settings& s) {
    const auto require = [](bool met, const std::string& sentence) {
        if (!met) throw usage_error(sentence);
    };
    require(s.model.width % s.model.heads == 0,
            fmt::format("--heads: is {}, which does not divide the --width {}", s.model.heads, s.model.width));
    require(s.curve_problems <= s.held_out || s.evaluate_every == 0,
            fmt::format("--curve-problems: is {}, more than the {} of --held-out", s.curve_problems, s.held_out));
}

}  // namespace calculator
