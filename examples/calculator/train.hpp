// Reinforcement learning: samples, rewards, advantages, updates.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "../support/random.hpp"
#include "collect.hpp"
#include "guard.hpp"
#include "learner.hpp"

namespace calculator {

// A step as it is written down.
struct step_report {
    tally answers;
    measured first;  // of the first update
    measured last;
    double gradient = 0;
    double rate = 0;
    guard::verdict verdict = guard::verdict::good;
    std::int64_t samples = 0;  // of the step
};

struct training_state {
    std::int64_t step = 0;
    std::int64_t problems = 0;  // of the stream, used so far
    std::int64_t samples = 0;
    guard watch;
};

class trainer {
public:
    trainer(const settings& s, const source& problems, learner& pupil, workers& crew)
        : reference(std::make_shared<transformer>(s.model)),
          good(std::make_shared<transformer>(s.model)),
          settings_(s),
          problems_(problems),
          pupil_(pupil),
          crew_(crew),
          method_(make_method(s.method)),
          longest_(std::min(problems.longest_response() + 4, s.model.context - problems.longest_prompt())),
          assemble_(s, longest_),
          before_(s.model) {
        copy_weights(*pupil.model, *reference);
        copy_weights(*pupil.model, *good);
        state.problems = s.sft_examples;
    }

    const calculator::method& method() const { return *method_; }

    bool done() const {
        return state.step >= settings_.steps || (settings_.max_samples > 0 && state.samples >= settings_.max_samples);
    }

    step_report step() {
        refresh_reference();
        copy_weights(*pupil_.model, before_);
        step_report r;
        const auto groups = collect(r.samples);
        r.answers = tally_of(groups);
        experience e = assemble_.of(groups, method_->samples() != origin::solutions);
        r.answers.reward = e.reward.sum().item<double>();
        if (method_->needs_greedy()) e.greedy_reward = greedy_rewards(groups);
        look_back(e);
        method_->prepare(e);
        if (method_->of_pairs()) e.pairs = pairs_of(groups);
        learn(e, r);
        watch(r);
        ++state.step;
        state.samples += r.samples;
        return r;
    }

    std::int64_t longest_response() const { return longest_; }

    training_state state;
    std::shared_ptr<transformer> reference;
    std::shared_ptr<transformer> good;  // the weights that the guard goes back to

private:
    std::uint64_t key(std::uint64_t stream) const {
        return support::mixed({settings_.seed, stream, static_cast<std::uint64_t>(state.step)});
    }

    void refresh_reference() {
        if (settings_.reference_refresh > 0 && state.step > 0 && state.step % settings_.reference_refresh == 0)
            copy_weights(*pupil_.model, *reference);
    }

    std::vector<group> collect(std::int64_t& samples) {
        constexpr std::uint64_t most_rounds = 4;
        std::vector<group> kept;
        std::vector<group> spare;
        const auto wanted = static_cast<std::size_t>(settings_.groups);
        for (std::uint64_t round = 0; round < most_rounds && kept.size() < wanted; ++round) {
            auto drawn = method_->samples() == origin::solutions ? solutions() : answers(round, samples);
            if (!settings_.dynamic_sampling) {
                kept = std::move(drawn);
                break;
            }
            const auto keep = detail::useful(drawn, settings_.group_size);
            for (std::size_t i = 0; i < drawn.size(); ++i) {
                auto& to = keep[i] != 0 && kept.size() < wanted ? kept : spare;
                to.push_back(std::move(drawn[i]));
            }
        }
        // Too few that carry a signal: the rest of the batch is made of those that carry none.
        for (std::size_t i = 0; kept.size() < wanted; ++i) kept.push_back(std::move(spare[i]));
        std::stable_sort(kept.begin(), kept.end(),
                         [](const group& a, const group& b) { return a.longest() < b.longest(); });
        return kept;
    }

    std::vector<group> answers(std::uint64_t round, std::int64_t& samples) {
        auto asked = problems_.train(settings_.seed, state.problems, settings_.groups);
        state.problems += settings_.groups;
        std::stable_sort(asked.begin(), asked.end(), [](const problem& a, const problem& b) {
            return a.prompt.size() + a.response.size() < b.prompt.size() + b.response.size();
        });
        transformer& author = method_->samples() == origin::start ? *reference : *pupil_.model;
        auto responses =
            sample(author, asked, settings_.group_size,
                   {.temperature = settings_.temperature, .longest = longest_, .key = key(100 + round)}, crew_);
        samples += static_cast<std::int64_t>(responses.size());
        return grouped(std::move(asked), std::move(responses), static_cast<std::size_t>(settings_.group_size));
    }

    std::vector<group> grouped(std::vector<problem> asked, std::vector<response> responses, std::size_t size) {
        std::vector<group> groups(asked.size());
        crew_.each(groups.size(), [&](std::size_t i) {
            group& g = groups[i];
            for (std::size_t k = i * size; k < (i + 1) * size; ++k) {
                g.verdicts.push_back(check(asked[i], responses[k].tokens));
                g.responses.push_back(std::move(responses[k]));
            }
            g.asked = std::move(asked[i]);
        });
        return groups;
    }

    // As many worked solutions as there would be samples, each of a problem of its own.
    std::vector<group> solutions() {
        auto asked = problems_.train(settings_.seed, state.problems, settings_.groups * settings_.group_size);
        state.problems += static_cast<std::int64_t>(asked.size());
        std::vector<response> responses;
        for (const problem& p : asked) responses.push_back({vocabulary::encode(p.response, true), {}});
        return grouped(std::move(asked), std::move(responses), 1);
    }

    at::Tensor greedy_rewards(const std::vector<group>& groups) {
        std::vector<problem> asked;
        for (const group& g : groups) asked.push_back(g.asked);
        const auto best = sample(*pupil_.model, asked, 1, {.temperature = 0, .longest = longest_}, crew_);
        std::vector<float> reward;
        for (std::size_t i = 0; i < groups.size(); ++i)
            for (std::size_t k = 0; k < groups[i].responses.size(); ++k)
                reward.push_back(check(asked[i], best[i].tokens).answer ? 1.0f : 0.0f);
        return detail::floats(reward);
    }

    // What the model and the reference say before the update, as far as the method asks for it. For the KL that is
    // shown, the reference looks at one piece in any case.
    void look_back(experience& e) {
        const auto tokens = e.offsets[-1].item<std::int64_t>();
        if (method_->needs_old() || settings_.inner_steps > 1) {
            e.logp_old = torch::empty({tokens});
            e.entropy_old = torch::empty({tokens});
            e.values_old = torch::empty({tokens});
            e.sum_probability_squared = torch::empty({tokens});
        }
        e.logp_ref = torch::zeros({tokens});
        crew_.each(e.pieces.size(), [&](std::size_t k) {
            const torch::NoGradGuard off;
            const packed& p = e.pieces[k];
            if (e.logp_old.defined()) {
                const outlook o = look(*pupil_.model, p, settings_.temperature);
                p.of(e.logp_old).copy_(o.logp);
                p.of(e.entropy_old).copy_(o.entropy);
                p.of(e.values_old).copy_(o.values);
                p.of(e.sum_probability_squared).copy_((o.logits / settings_.temperature).softmax(-1).square().sum(-1));
            }
            if (method_->needs_reference() || k == e.shown_piece())
                p.of(e.logp_ref).copy_(look(*reference, p, settings_.temperature).logp);
        });
    }

    void learn(experience& e, step_report& r) {
        r.rate = settings_.learning_rate * state.watch.scale() * state.watch.warmth(settings_.warm_up) *
                 scheduled(1.0, state.step, settings_.steps, settings_.warm_up, 0.0);
        for (std::int64_t inner = 0; inner < settings_.inner_steps; ++inner) {
            std::vector<measured> of_piece(e.pieces.size());
            const double norm = pupil_.update(
                crew_, e.pieces.size(),
                [&](std::size_t k) {
                    const packed& p = e.pieces[k];
                    return method_->loss(look(*pupil_.model, p, settings_.temperature), e, p, of_piece[k]);
                },
                r.rate, settings_.longest_gradient);
            r.last = {};
            for (const measured& m : of_piece) r.last.add(m);
            if (inner == 0) r.first = r.last;
            r.gradient = norm;
            if (!std::isfinite(norm)) return;
        }
    }

    void watch(step_report& r) {
        if (!settings_.guard || method_->samples() != origin::policy) return;
        r.verdict = state.watch.see(r.answers.share(r.answers.right), std::isfinite(r.gradient));
        if (r.verdict == guard::verdict::better) copy_weights(before_, *good);  // those that answered so well
        if (r.verdict != guard::verdict::collapsed) return;
        copy_weights(*good, *pupil_.model);
        pupil_.forget();
        state.watch.back();
    }

    const settings& settings_;
    const source& problems_;
    learner& pupil_;
    workers& crew_;
    std::unique_ptr<calculator::method> method_;
    std::int64_t longest_;
    assembly assemble_;
    transformer before_;  // the weights that this step's responses come from
};

}  // namespace calculator
