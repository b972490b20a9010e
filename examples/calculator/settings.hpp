// Everything that a run is made from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "generate.hpp"

namespace calculator {

enum class supervision { outcome, process };

struct model_options {
    std::int64_t layers = 2;
    std::int64_t heads = 4;
    std::int64_t width = 96;
    std::int64_t context = 0;  // longest prompt and response together; 0: what the problems need
};

struct method_options {
    std::string name = "dapo";
    supervision by = supervision::outcome;
    double kl = -1;  // coefficient of the KL to the reference; below 0: the recipe's own
    double critic = 0.5;
};

struct settings {
    std::string gsm8k;
    difficulty task;
    model_options model;

    std::int64_t sft_steps = 400;
    std::int64_t sft_examples = 20000;
    std::int64_t sft_batch = 128;
    double sft_learning_rate = 3e-3;

    method_options method;
    std::int64_t steps = 400;
    std::int64_t max_samples = 0;
    std::int64_t groups = 64;
    std::int64_t group_size = 8;
    std::int64_t inner_steps = 1;
    std::int64_t reference_refresh = 0;
    std::int64_t overlong = 0;
    bool dynamic_sampling = false;
    bool guard = true;
    double temperature = 1.0;
    double learning_rate = 4e-4;
    std::int64_t warm_up = 10;
    double longest_gradient = 1.0;

    std::int64_t held_out = 500;
    std::int64_t samples = 16;
    std::int64_t evaluate_every = 25;
    std::int64_t curve_problems = 200;
    std::int64_t save_every = 50;

    std::uint64_t seed = 1;
    int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    std::string out = "calculator-run";
    std::string init;
    bool resume = false;
    bool force = false;

    // The k of pass@k and maj@k: 1, 4, 16, ... up to the number of samples.
    std::vector<std::int64_t> ks() const {
        std::vector<std::int64_t> all;
        for (std::int64_t k = 1; k <= samples; k *= 4) all.push_back(k);
        return all;
    }
};

// What decides the numbers of a run: all but where files lie, how many threads work, and how often is saved.
inline nlohmann::ordered_json config_of(const settings& s) {
    nlohmann::ordered_json j;
    j["data"] = s.gsm8k.empty() ? "generated" : "gsm8k";
    if (s.gsm8k.empty()) {
        j["task"] = {{"lengths", s.task.lengths},
                     {"operations", s.task.operations},
                     {"parentheses", s.task.parentheses},
                     {"largest_term", s.task.largest_term},
                     {"largest_factor", s.task.largest_factor},
                     {"largest_value", s.task.largest_value},
                     {"held_out_share", s.task.held_out_share}};
    }
    j["model"] = {
        {"layers", s.model.layers}, {"heads", s.model.heads}, {"width", s.model.width}, {"context", s.model.context}};
    j["seed"] = s.seed;
    j["start"] = s.init.empty() ? "sft" : "checkpoint";
    j["sft_steps"] = s.sft_steps;
    j["sft_examples"] = s.sft_examples;
    j["sft_batch"] = s.sft_batch;
    j["sft_learning_rate"] = s.sft_learning_rate;
    j["recipe"] = s.method.name;
    j["supervision"] = s.method.by == supervision::process ? "process" : "outcome";
    if (s.method.kl >= 0) j["kl"] = s.method.kl;
    j["critic"] = s.method.critic;
    j["steps"] = s.steps;
    j["max_samples"] = s.max_samples;
    j["groups"] = s.groups;
    j["group_size"] = s.group_size;
    j["inner_steps"] = s.inner_steps;
    j["reference_refresh"] = s.reference_refresh;
    j["overlong"] = s.overlong;
    j["dynamic_sampling"] = s.dynamic_sampling;
    j["guard"] = s.guard;
    j["temperature"] = s.temperature;
    j["learning_rate"] = s.learning_rate;
    j["warm_up"] = s.warm_up;
    j["longest_gradient"] = s.longest_gradient;
    j["held_out"] = s.held_out;
    j["samples"] = s.samples;
    j["evaluate_every"] = s.evaluate_every;
    j["curve_problems"] = s.curve_problems;
    return j;
}

}  // namespace calculator
