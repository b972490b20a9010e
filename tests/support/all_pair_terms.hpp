// Every term of preference.hpp on pairs, and typical pairs, for tests that hold for all of them. A new term is one line.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <grpo/preference.hpp>

namespace all_pair_terms {

template <class F>
void for_each(F&& f) {
    using grpo::divergence;
    f("dpo", grpo::dpo{});
    f("cdpo", grpo::cdpo{.beta = 0.5, .label_smoothing = 0.1});
    f("robust_dpo", grpo::robust_dpo{.beta = 0.5, .label_smoothing = 0.1});
    f("ipo", grpo::ipo{.beta = 0.5});
    f("hinge", grpo::hinge{.beta = 0.5});
    f("exo", grpo::exo{.beta = 0.5});
    f("nca", grpo::nca{});
    f("bco_pair", grpo::bco_pair{});
    f("sppo_hard", grpo::sppo_hard{.beta = 0.5});
    f("apo_zero", grpo::apo_zero{});
    f("apo_down", grpo::apo_down{});
    f("discopop", grpo::discopop{});
    f("f_dpo, forward", grpo::f_dpo{.kind = divergence::forward_kl});
    f("f_dpo, js", grpo::f_dpo{.kind = divergence::js});
    f("f_dpo, alpha", grpo::f_dpo{.kind = divergence::alpha, .exponent_bound = 1.0});
    f("aot", grpo::aot{.label_smoothing = 0.1});
    f("simpo", grpo::simpo{.label_smoothing = 0.1});
    f("alpha_po", grpo::alpha_po{});
    f("cpo", grpo::cpo());
    f("orpo", grpo::orpo());
    f("tpo", grpo::tpo());
    f("tpo_l", grpo::tpo_l());
    f("per_token ipo", grpo::per_token{grpo::ipo{.beta = 0.5}});
    f("online_dpo", grpo::online_dpo(grpo::dpo{}));
    f("xpo", grpo::xpo(grpo::ipo{.beta = 0.5}, 0.25));
    f("wpo", grpo::by_pair_weight{} * grpo::dpo{});
    f("bradley_terry", grpo::bradley_terry_margin{} + 0.01 * grpo::centring{});
}

// n pairs on both sides of every branch, with everything a term may need.
template <class T>
struct pairs {
    std::vector<T> chosen, rejected, gold, ref_chosen, ref_rejected, chosen_length, rejected_length, gold_length, margin,
        weight, preferred;

    explicit pairs(std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) {
            const double x = static_cast<double>(i);
            const auto put = [](std::vector<T>& to, double v) { to.push_back(static_cast<T>(v)); };
            put(chosen, -10 - 5 * std::sin(1.3 * x));
            put(rejected, -9 - 6 * std::cos(0.7 * x));
            put(gold, -3 - std::sin(0.4 * x));
            put(ref_chosen, -10 + std::sin(0.2 * x));
            put(ref_rejected, -9.5);
            put(chosen_length, static_cast<double>(i % 7));
            put(rejected_length, static_cast<double>(i % 5 + 1));
            put(gold_length, static_cast<double>(i % 3 + 1));
            put(margin, 0.1 * x);
            put(weight, 0.5 + 0.01 * x);
            put(preferred, i % 2 == 0 ? 0.0 : 1.0);
        }
    }

    auto batch() const {
        return grpo::batch(grpo::padded(1, static_cast<std::int64_t>(chosen.size())), grpo::chosen(chosen),
                           grpo::rejected(rejected), grpo::gold(gold), grpo::ref_chosen(ref_chosen),
                           grpo::ref_rejected(ref_rejected), grpo::chosen_length(chosen_length),
                           grpo::rejected_length(rejected_length), grpo::gold_length(gold_length), grpo::margin(margin),
                           grpo::pair_weight(weight), grpo::preferred(preferred));
    }

    // Pair i for a scalar S; variable(v, k) makes the k-th differentiable input.
    template <class S, class Variable>
    grpo::pair<S> at(std::size_t i, Variable&& variable) const {
        grpo::pair<S> p;
        const auto c = [](T v) { return grpo::constant<S>(static_cast<double>(v)); };
        p.chosen = variable(static_cast<double>(chosen[i]), 0);
        p.rejected = variable(static_cast<double>(rejected[i]), 1);
        p.gold = variable(static_cast<double>(gold[i]), 2);
        p.ref_chosen = c(ref_chosen[i]);
        p.ref_rejected = c(ref_rejected[i]);
        p.chosen_length = c(chosen_length[i]);
        p.rejected_length = c(rejected_length[i]);
        p.gold_length = c(gold_length[i]);
        p.margin = c(margin[i]);
        p.pair_weight = c(weight[i]);
        p.preferred = c(preferred[i]);
        return p;
    }
};

}  // namespace all_pair_terms
