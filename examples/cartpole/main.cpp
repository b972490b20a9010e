// PPO on CartPole-v1 and Acrobot-v1 with CleanRL's hyper-parameters, beside the results that CleanRL publishes.
//
//   cartpole --out runs/cartpole --seeds 5 --threads 2
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <grpo/fold.hpp>
#include <nlohmann/json.hpp>

#include "cartpole/runs.hpp"
#include "support/error.hpp"
#include "support/files.hpp"
#include "support/interrupt.hpp"
#include "support/plot.hpp"
#include "support/progress.hpp"
#include "support/table.hpp"

namespace {

struct request {
    std::vector<std::string> tasks{"cartpole", "acrobot"};
    std::int64_t seeds = 3;
    std::uint64_t first_seed = 1;
    std::int64_t threads = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
    std::int64_t updates_per_row = 8;
    std::string out = "runs/cartpole";
    bool overwrite = false;
    bool draw = true;
    control::settings settings;
};

void add_hyper_parameters(CLI::App& app, control::settings& s) {
    const auto count = [&](const char* name, std::int64_t& value, const char* what, double most) {
        app.add_option(name, value, what)->capture_default_str()->check(CLI::Range(1.0, most))->group("PPO");
    };
    const auto number = [&](const char* name, double& value, const char* what, double least, double most) {
        app.add_option(name, value, what)->capture_default_str()->check(CLI::Range(least, most))->group("PPO");
    };
    count("--steps", s.total_timesteps, "environment steps per seed (CleanRL: 500000)", 1e12);
    number("--learning-rate", s.learning_rate, "of Adam, with eps 1e-5 (CleanRL: 2.5e-4)", 0.0, 1.0);
    app.add_flag("--anneal-lr,!--no-anneal-lr", s.anneal_lr, "let it fall linearly to 0 (CleanRL: on)")->group("PPO");
    count("--num-envs", s.num_envs, "environments played side by side (CleanRL: 4)", 65536);
    count("--num-steps", s.num_steps, "steps of each environment per update (CleanRL: 128)", 1048576);
    count("--num-minibatches", s.num_minibatches, "parts of the steps of an update (CleanRL: 4)", 1048576);
    count("--update-epochs", s.update_epochs, "times that each step is learnt from (CleanRL: 4)", 1000);
    number("--gamma", s.gamma, "discount of later rewards (CleanRL: 0.99)", 0.0, 1.0);
    number("--gae-lambda", s.gae_lambda, "lambda of the advantage estimate (CleanRL: 0.95)", 0.0, 1.0);
    app.add_flag("--norm-adv,!--no-norm-adv", s.norm_adv, "whiten advantages per minibatch (CleanRL: on)")
        ->group("PPO");
    number("--clip-coef", s.clip_coef, "clip of the policy's ratio, and of values (CleanRL: 0.2)", 0.0, 1.0);
    app.add_flag("--clip-vloss,!--no-clip-vloss", s.clip_vloss, "clip the value loss as well (CleanRL: on)")
        ->group("PPO");
    number("--ent-coef", s.ent_coef, "weight of the entropy bonus (CleanRL: 0.01)", 0.0, 1e6);
    number("--vf-coef", s.vf_coef, "weight of the value loss (CleanRL: 0.5)", 0.0, 1e6);
    number("--max-grad-norm", s.max_grad_norm, "bound of the gradient's norm (CleanRL: 0.5)", 0.0, 1e6);
    app.add_option("--target-kl", s.target_kl, "end an update's epochs above this KL (CleanRL: never)")
        ->check(CLI::Range(0.0, 1e6))
        ->group("PPO");
    app.add_flag("--bootstrap-truncated", s.bootstrap_truncated,
                 "let the critic's value follow an episode that the step limit cut (CleanRL: off)")
        ->group("PPO");
}

void add_options(CLI::App& app, request& r) {
    app.add_option("--env", r.tasks, "cartpole, acrobot, or both, separated by a comma")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::IsMember(std::vector<std::string>{"cartpole", "acrobot"}))
        ->capture_default_str();
    app.add_option("--seeds", r.seeds, "runs per environment, from --seed on (CleanRL: 3)")
        ->capture_default_str()
        ->check(CLI::Range(1, 10000));
    app.add_option("--seed", r.first_seed, "the first of them (CleanRL: 1)")->capture_default_str();
    app.add_option("--threads", r.threads, "runs at the same time, one thread each")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    app.add_option("--out", r.out, "folder for tables, curves and the configuration")->capture_default_str();
    app.add_flag("--overwrite", r.overwrite, "replace the results of an earlier run in that folder");
    app.add_option("--updates-per-row", r.updates_per_row, "of the tables of metrics")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000000));
    app.add_flag("--curves,!--no-curves", r.draw, "draw learning curves (on)");
    add_hyper_parameters(app, r.settings);
}

nlohmann::json configuration(const request& r) {
    const control::settings& s = r.settings;
    return {{"env", r.tasks},
            {"seeds", r.seeds},
            {"seed", r.first_seed},
            {"steps", s.total_timesteps},
            {"learning_rate", s.learning_rate},
            {"anneal_lr", s.anneal_lr},
            {"num_envs", s.num_envs},
            {"num_steps", s.num_steps},
            {"num_minibatches", s.num_minibatches},
            {"update_epochs", s.update_epochs},
            {"gamma", s.gamma},
            {"gae_lambda", s.gae_lambda},
            {"norm_adv", s.norm_adv},
            {"clip_coef", s.clip_coef},
            {"clip_vloss", s.clip_vloss},
            {"ent_coef", s.ent_coef},
            {"vf_coef", s.vf_coef},
            {"max_grad_norm", s.max_grad_norm},
            {"target_kl", s.target_kl ? nlohmann::json(*s.target_kl) : nlohmann::json()},
            {"bootstrap_truncated", s.bootstrap_truncated},
            {"updates_per_row", r.updates_per_row}};
}

// Every seed of every environment, and where its table goes; environments that are named twice count once.
std::vector<control::run> runs_of(const request& r) {
    std::vector<control::run> runs;
    for (const control::task& t : control::tasks()) {
        if (std::find(r.tasks.begin(), r.tasks.end(), t.name) == r.tasks.end()) continue;
        for (std::int64_t k = 0; k < r.seeds; ++k) {
            const std::uint64_t seed = r.first_seed + static_cast<std::uint64_t>(k);
            runs.push_back({t, seed, fmt::format("{}/{}/seed-{}.csv", r.out, t.name, seed)});
        }
    }
    return runs;
}

void make_room(const request& r, const std::vector<control::run>& runs) {
    const std::string config = r.out + "/config.json";
    std::error_code unknown;
    if (!r.overwrite && std::filesystem::exists(config, unknown)) {
        throw support::bad_input(
            fmt::format("--out {} holds the results of an earlier run: give another folder, or "
                        "--overwrite",
                        r.out));
    }
    for (const control::run& one : runs) support::make_folder(fmt::format("{}/{}", r.out, one.about.name));
    support::write_file(config, configuration(r).dump(4) + "\n");
}

struct scores {
    control::task about;
    std::vector<const control::run*> runs;

    // Mean and deviation over seeds with the divisor n, as CleanRL's ± is numpy's std().
    grpo::moments::state<double> moments() const {
        grpo::moments::state<double> s;
        for (const control::run* one : runs) grpo::moments::add(s, one->score);
        return s;
    }
    double steps_per_second(double control::run::*seconds) const {
        double steps = 0;
        double time = 0;
        for (const control::run* one : runs) {
            steps += static_cast<double>(one->steps);
            time += one->*seconds;
        }
        return time > 0 ? steps / time : 0.0;
    }
};

std::vector<scores> by_task(const std::vector<control::run>& runs) {
    std::vector<scores> all;
    for (const control::run& one : runs) {
        if (!one.complete) continue;
        if (all.empty() || std::string(all.back().about.name) != one.about.name) all.push_back({one.about, {}});
        all.back().runs.push_back(&one);
    }
    return all;
}

std::string results_table(const std::vector<scores>& all) {
    support::table table(
        {"environment", "seeds", "return", "CleanRL", "steps per core second", "of the rollouts alone"});
    for (const scores& s : all) {
        const auto m = s.moments();
        table.add({s.about.id, fmt::format("{}", s.runs.size()),
                   fmt::format("{:.2f} ± {:.2f}", m.mean, std::sqrt(grpo::moments::variance(m, 0))),
                   fmt::format("{:.2f} ± {:.2f}", s.about.published_mean, s.about.published_deviation),
                   fmt::format("{:.0f}", s.steps_per_second(&control::run::core_seconds)),
                   fmt::format("{:.0f}", s.steps_per_second(&control::run::play_seconds))});
    }
    return table.text();
}

std::string results_csv(const std::vector<control::run>& runs) {
    std::string text = "environment,seed,episodic_return,episodes,steps\n";
    for (const control::run& one : runs) {
        if (!one.complete) continue;
        text += fmt::format("{},{},{},{},{}\n", one.about.id, one.seed, one.score, one.episodes, one.steps);
    }
    return text;
}

// One picture per environment; a sentence on stderr where it cannot be drawn.
void draw_curves(const request& r, const std::vector<scores>& all) {
    for (const scores& s : all) {
        support::curves c;
        c.out = fmt::format("{}/{}/curves.svg", r.out, s.about.name);
        c.title = fmt::format("PPO on {}, {} seeds", s.about.id, s.runs.size());
        c.x_label = "environment steps";
        c.panels = {"episodic_return=return, mean of 100 episodes", "entropy=entropy of the policy",
                    "explained_variance=explained variance of the critic", "approx_kl=KL of an update"};
        for (const control::run* one : s.runs) c.runs.emplace_back("mean of the seeds", one->metrics);
        c.more = {"--columns=2", fmt::format("--reference={}+-{}=CleanRL, at the end", s.about.published_mean,
                                             s.about.published_deviation)};
        const std::string problem = support::draw(c);
        if (problem.empty()) fmt::print("Curves: {}\n", c.out);
        if (!problem.empty()) fmt::print(stderr, "cartpole: {}\n", problem);
    }
}

std::int64_t threads_of(const request& r) {
    return std::min(r.threads, r.seeds * static_cast<std::int64_t>(r.tasks.size()));
}

std::vector<control::run> trained(const request& r) {
    std::vector<control::run> runs = runs_of(r);
    make_room(r, runs);
    const auto total = static_cast<std::int64_t>(runs.size()) * r.settings.updates() * r.settings.batch_size();
    support::catch_interrupts();
    support::progress bar("training", total);
    const auto begin = std::chrono::steady_clock::now();
    control::train_all(runs, r.settings, r.updates_per_row, threads_of(r), [&](std::int64_t steps) {
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        bar.at(steps, fmt::format("{} runs, {:.0f} steps/s", runs.size(), static_cast<double>(steps) / seconds));
    });
    return runs;
}

int run(const request& r) {
    r.settings.validate();
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<control::run> runs = trained(r);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const std::vector<scores> all = by_task(runs);
    const auto complete = std::count_if(runs.begin(), runs.end(), [](const control::run& one) { return one.complete; });
    support::write_file(r.out + "/results.csv", results_csv(runs));
    if (!all.empty()) {
        fmt::print("Mean return of each seed's last {} episodes, ± the deviation over seeds\n\n{}\n",
                   control::episodes_averaged, results_table(all));
    }
    std::int64_t steps = 0;
    for (const control::run& one : runs) steps += one.steps;
    fmt::print("{} of {} runs, {} steps in {:.1f} s ({:.0f} steps/s) by {} threads; tables: {}\n", complete,
               runs.size(), steps, seconds, static_cast<double>(steps) / seconds, threads_of(r), r.out);
    if (r.draw) draw_curves(r, all);
    if (complete == static_cast<std::ptrdiff_t>(runs.size())) return 0;
    fmt::print(stderr, "cartpole: interrupted; the tables of {} runs end early\n",
               static_cast<std::ptrdiff_t>(runs.size()) - complete);
    return 130;
}

}  // namespace

int main(int argc, char** argv) {
    request r;
    CLI::App app("PPO on CartPole-v1 and Acrobot-v1 with CleanRL's hyper-parameters; docs/cartpole.md.", "cartpole");
    add_options(app, r);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }
    try {
        return run(r);
    } catch (const std::exception& e) {
        std::fflush(stdout);
        fmt::print(stderr, "cartpole: {}\n", e.what());
        return 1;
    }
}
