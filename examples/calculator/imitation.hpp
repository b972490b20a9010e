// Supervised fine-tuning: the model imitates worked solutions.
#pragma once

#include <cstdint>
#include <vector>

#include "../support/random.hpp"
#include "batch.hpp"
#include "learner.hpp"
#include "settings.hpp"

namespace calculator {

// At a constant rate: a start whose rate had fallen to 0 would lose accuracy before reinforcement learning gains any.
class imitation {
public:
    imitation(const settings& s, const source& problems, learner& pupil, workers& crew)
        : settings_(s), pupil_(pupil), crew_(crew) {
        for (const problem& p : problems.train(s.seed, 0, s.sft_examples)) {
            prompts_.push_back(vocabulary::encode(p.prompt));
            solutions_.push_back(vocabulary::encode(p.response, true));
        }
    }

    // One update; the mean loss of its examples. Which examples they are depends on the seed and the step alone.
    double step(std::int64_t k) {
        const auto pieces = batch_of(k);
        const auto sft = grpo::recipe::sft();
        std::vector<double> losses(pieces.size());
        pupil_.update(
            crew_, pieces.size(),
            [&](std::size_t i) {
                const outlook o = look(*pupil_.model, pieces[i], 1.0);
                const auto l = grpo::libtorch::evaluate(
                    sft.objective, grpo::libtorch::token_tensors{.logp = o.logp, .cu_seqlens = pieces[i].offsets},
                    static_cast<double>(settings_.sft_batch));
                losses[i] = l.value.item<double>();
                return l.value;
            },
            scheduled(settings_.sft_learning_rate, k, settings_.sft_steps, 20, 1.0), settings_.longest_gradient);
        double sum = 0;
        for (const double x : losses) sum += x;
        return sum;
    }

private:
    // Passes over the examples, each in an order of its own; a batch's examples are sorted by length.
    std::vector<packed> batch_of(std::int64_t k) {
        const auto all = static_cast<std::int64_t>(prompts_.size());
        std::vector<std::int64_t> chosen;
        for (std::int64_t i = k * settings_.sft_batch; i < (k + 1) * settings_.sft_batch; ++i) {
            if (i / all != pass_) {
                pass_ = i / all;
                order_ =
                    support::choices(support::mixed({settings_.seed, 7, static_cast<std::uint64_t>(pass_)})).order(all);
            }
            chosen.push_back(order_[static_cast<std::size_t>(i % all)]);
        }
        const auto length = [&](std::int64_t i) {
            const auto at = static_cast<std::size_t>(i);
            return prompts_[at].size() + solutions_[at].size();
        };
        std::stable_sort(chosen.begin(), chosen.end(), [&](auto a, auto b) { return length(a) < length(b); });
        std::vector<sequence> prompts;
        std::vector<sequence> solutions;
        for (const std::int64_t i : chosen) {
            prompts.push_back(prompts_[static_cast<std::size_t>(i)]);
            solutions.push_back(solutions_[static_cast<std::size_t>(i)]);
        }
        return pack_all(prompts, solutions, static_cast<std::size_t>((settings_.sft_batch + 1) / 2));
    }

    const settings& settings_;
    learner& pupil_;
    workers& crew_;
    std::vector<sequence> prompts_;
    std::vector<sequence> solutions_;
    std::int64_t pass_ = -1;
    std::vector<std::int64_t> order_;
};

}  // namespace calculator
