// A method: its name and source, its advantage rule, its loss, and what belongs to it beyond those.
#pragma once

#include <grpo/correction/weights.hpp>
#include <grpo/objective.hpp>
#include <grpo/recipe/rule.hpp>
#include <grpo/selection/tokens.hpp>
#include <grpo/term.hpp>

namespace grpo::inline v0 {
namespace detail {

// The weight on the leftmost of what was added up.
template <class Policy>
auto weigh(const Policy& t) {
    return rollout_weighted{} * t;
}
template <class Policy, class Added>
auto weigh(const joined_term<plus, Policy, Added>& t) {
    return weigh(t.a) + t.b;
}

}  // namespace detail

namespace recipe {

// Where a method holds the policy to its reference.
enum class kl_place { none, loss, reward };

// The tokens whose mask the loss reads as grpo::keep(mask), and who makes it.
enum class selector { none, clip_cov, kl_cov, top_entropy, m2po };
struct selection_rule {
    selector kind = selector::none;
    covariance_band band{};  // select_clip_cov; its fraction also for select_kl_cov
    double share = 1.0;      // select_top_entropy
    double threshold = 0.0;  // select_m2po
};

// What weights correct for a rollout engine that differs from the trainer.
enum class correction_use {
    none,        // the method has nothing to say: any rule can be combined with it through weighted()
    on_request,  // the source ships `correction`, but not in its plainest set-up: weighted() applies it
    always,      // the objective reads weights: make them with `correction`
};

// A method without its loss: the same type for all.
struct card {
    const char* name = "";
    const char* source = "";   // paper with equation, or framework with commit
    const char* summary = "";  // what differs, in a line
    advantage_rule advantage{};
    selection_rule selection{};
    correction_use corrected = correction_use::none;
    grpo::correction correction{};

    // advantage.by_sequence: ([executor,] groups, [tokens,] rewards, advantages), one number per response.
    template <class... Arguments>
    void advantages(Arguments&&... arguments) const {
        advantage.by_sequence(static_cast<Arguments&&>(arguments)...);
    }
};

template <term Term>
struct method : card {
    grpo::objective<Term> objective;

    // Whether the loss reads logp_ref as it now stands: a KL of scale 0 does not.
    bool reads_reference() const {
        return detail::reduced(objective.term,
                               []<class Left>(const Left&) { return (Left::needs & input::logp_ref::bit) != 0; });
    }
    kl_place kl() const {
        if (reads_reference()) return kl_place::loss;
        return advantage.kl.beta != 0 ? kl_place::reward : kl_place::none;
    }
    // The loss with its policy part multiplied by the rollout-correction weight (grpo::weight in the batch). A KL term
    // or any other that was added is not weighed, as in verl and TRL.
    auto weighted() const;
};

template <term Term>
auto method<Term>::weighted() const {
    const auto loss = detail::weigh(objective.term);
    return grpo::objective<std::remove_cvref_t<decltype(loss)>>{loss, objective.over, objective.policy};
}

// A method of one's own, or one of the field's: see the headers next to this one.
template <term Term>
method<Term> make(const card& what, const Term& loss, const aggregation& over) {
    return {what, {loss, over}};
}

}  // namespace recipe
}  // namespace grpo::inline v0
