// A run from start to end: imitation, evaluation, reinforcement learning, evaluation; and the files it leaves.
#pragma once

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "../support/csv.hpp"
#include "../support/files.hpp"
#include "../support/interrupt.hpp"
#include "../support/plot.hpp"
#include "../support/progress.hpp"
#include "checkpoint.hpp"
#include "evaluate.hpp"
#include "evaluate_json.hpp"
#include "gsm8k.hpp"
#include "imitation.hpp"
#include "train.hpp"

namespace calculator {

inline std::unique_ptr<source> make_source(const settings& s) {
    if (s.gsm8k.empty()) return std::make_unique<generated>(s.task);
    return std::make_unique<gsm8k>(gsm8k::files(s.gsm8k));
}

class run {
public:
    explicit run(const settings& s)
        : settings_(s), crew_(s.threads), problems_(make_source(s)), pupil_(seeded(s), 0.0) {
        held_out_ = problems_->held_out(s.held_out);
    }

    // The exit code: 0, or 130 where a Ctrl-C ended it.
    int go() {
        support::make_folder(settings_.out);
        support::write_file(path("config.json"), config_of(settings_).dump(2) + "\n");
        imitate();
        trainer t(settings_, *problems_, pupil_, crew_);
        const evaluation before = evaluated(*t.reference, t.longest_response());
        reinforce(t);
        const evaluation after = evaluated(*pupil_.model, t.longest_response());
        fmt::print("\n{}\n", comparison_table(before, after, "before (SFT)", "after"));
        support::write_file(path("evaluation.json"), comparison_json(before, after).dump(2) + "\n");
        return 0;
    }

private:
    using clock = std::chrono::steady_clock;

    static const model_options& seeded(const settings& s) {
        torch::manual_seed(s.seed);
        return s.model;
    }
    std::string path(const std::string& name) const { return settings_.out + "/" + name; }

    void imitate() {
        if (!settings_.init.empty()) {
            checkpoint_reader from(settings_.init);
            from.require_same(config_of(settings_), "model", "model");
            from.weights("model", *pupil_.model);
            return;
        }
        imitation teach(settings_, *problems_, pupil_, crew_);
        support::progress bar("imitating", settings_.sft_steps);
        for (std::int64_t k = 0; k < settings_.sft_steps; ++k) {
            const double loss = teach.step(k);
            bar.at(k + 1, fmt::format("loss {:.3f}", loss));
        }
        checkpoint_writer to;
        to.weights("model", *pupil_.model);
        to.save(path("start.pt"), {{"config", config_of(settings_)}});
        pupil_.forget();
    }

    sampler sampler_of(transformer& model, std::int64_t longest) {
        return [this, &model, longest](std::span<const problem> problems, int samples, bool greedy) {
            const auto made = sample(model, problems, samples,
                                     {.temperature = greedy ? 0.0 : 1.0, .longest = longest, .key = settings_.seed}, crew_);
            std::vector<std::vector<token>> texts;
            for (const response& r : made) texts.push_back(r.tokens);
            return texts;
        };
    }

    evaluation evaluated(transformer& model, std::int64_t longest) {
        return evaluate(held_out_, sampler_of(model, longest),
                        {.samples = static_cast<int>(settings_.samples), .batch = held_out_.size(), .progress = {}});
    }

    void reinforce(trainer& t) {
        support::csv_writer table(path("metrics.csv"),
                                  {"step", "samples", "reward", "accuracy", "step_accuracy", "well_formed", "ended", "length",
                                   "useful_groups", "loss", "critic_loss", "kl", "moved", "entropy", "clip_fraction",
                                   "gradient_norm", "learning_rate", "held_out_accuracy"});
        support::progress bar("reinforcing", settings_.steps);
        while (!t.done()) {
            const auto began = clock::now();
            const step_report r = t.step();
            const double seconds = std::chrono::duration<double>(clock::now() - began).count();
            const tally& a = r.answers;
            double held_out = NAN;
            if (settings_.evaluate_every > 0 && t.state.step % settings_.evaluate_every == 0) {
                const std::span<const problem> few(held_out_.data(), std::min<std::size_t>(held_out_.size(), static_cast<std::size_t>(settings_.curve_problems)));
                const auto e = evaluate(few, sampler_of(*pupil_.model, t.longest_response()), {.samples = 0, .ks = {}, .batch = few.size(), .progress = {}});
                held_out = support::summary(e.greedy).mean;
            }
            const auto share = [](double sum, double weight) { return weight > 0 ? sum / weight : NAN; };
            const double kl = share(r.last.kl, r.last.ref_weight);
            const double entropy = share(r.first.entropy, r.first.weight);
            table.row(t.state.step,
                      std::vector<double>{static_cast<double>(t.state.samples), a.share(a.reward), a.share(a.right), a.share(a.steps_right),
                       a.share(a.well_formed), a.share(a.ended), a.share(static_cast<double>(a.tokens)),
                       static_cast<double>(a.useful_groups) / static_cast<double>(a.groups), r.last.loss, r.last.critic_loss, kl,
                       share(r.last.moved, r.last.weight), entropy, share(r.last.clipped, r.last.weight), r.gradient, r.rate, held_out});
            bar.at(t.state.step, fmt::format("reward {:.3f} right {:.3f} KL {:.3f} entropy {:.3f} clipped {:.3f} length {:.1f} {:.0f} tokens/s held-out {:.3f}",
                                             a.share(a.reward), a.share(a.right), kl, entropy, share(r.last.clipped, r.last.weight),
                                             a.share(static_cast<double>(a.tokens)), static_cast<double>(a.tokens) / seconds, held_out));
        }
    }

    const settings settings_;
    workers crew_;
    std::unique_ptr<source> problems_;
    learner pupil_;
    std::vector<problem> held_out_;
};

}  // namespace calculator
