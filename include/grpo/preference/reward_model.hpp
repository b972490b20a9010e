// Losses that train reward models: on pairs of scores, and on steps (process reward models).
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective.hpp>
#include <grpo/preference/pair.hpp>
#include <grpo/preference/sequence.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// L = -log σ(s_w - s_l) = log(1 + e^(s_l - s_w)), s the scores given as chosen(...) and rejected(...). Bradley-Terry
// (arXiv 2203.02155, eq. 1); the same loss written as log-exp in arXiv 2204.05862.
struct bradley_terry {
    static constexpr unsigned needs = detail::responses;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(-math::log_sigmoid(S(t.chosen - t.rejected))); }
};

// L = -log σ(s_w - s_l - m), m given as margin(...): how much better the chosen response was rated (arXiv 2307.09288, eq. 2).
struct bradley_terry_margin {
    static constexpr unsigned needs = detail::responses | input::margin::bit;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return S(-math::log_sigmoid(S(S(t.chosen - t.rejected) - t.margin)));
    }
};

// L = (s_w + s_l)², added with a small coefficient so that scores are centred at 0 (arXiv 2312.09244; 0.01 in TRL's advice):
// bradley_terry{} + 0.01 * centring{}.
struct centring {
    static constexpr unsigned needs = detail::responses;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return math::square(S(t.chosen + t.rejected)); }
};

// One position of a step classifier: the logit of "this step is right".
template <class S>
struct step {
    S logit{};
    constant_t<S> label{};
};

namespace input {
struct logit {
    template <class S>
    using record = step<S>;
    static constexpr unsigned bit = 1u << 19;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "logit";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logit; }
};
}  // namespace input

template <class C>
auto logit(const C& x) { return field_of<input::logit>(x); }
template <class C>
auto d_logit(C&& out) { return gradient_of<input::logit>(out); }

// L = -log σ(z) where the label is above 0, else -log σ(-z): cross-entropy of one logit. Batches name the logit first:
// batch(shape.where(mask), logit(z), label(y)), the mask from mark_steps.
struct step_cross_entropy {
    static constexpr unsigned needs = input::logit::bit | input::label::bit;
    template <class S>
    GRPO_HD S operator()(const step<S>& t) const {
        const constant_t<S> none(constant<S>(0));
        const mask_t<S> right = none < t.label;
        return S(-math::log_sigmoid(math::select<S>(right, t.logit, S(-t.logit))));
    }
};

// Which positions carry a step's label: those whose label is not `ignore` (-100 in TRL: the label of a step sits on its
// last token), or only the last such position of every sequence.
struct step_labels {
    std::int64_t ignore = -100;
    bool last_only = false;
};

namespace detail {

template <class Shape, class L, class M>
struct step_rows {
    Shape layout;
    const L* labels;
    step_labels which;
    M* mask;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }
    GRPO_HD bool labelled(cursor<double> at) const {
        return layout.active(at) && static_cast<double>(labels[at.i]) != static_cast<double>(which.ignore);
    }

    template <class Team>
    GRPO_HD std::int64_t operator()(Team& team, std::int64_t row) const {
        const std::int64_t begin = layout.begin(row);
        const std::int64_t end = layout.end(row);
        const auto found = team.template fold<tally<1, 1>, double>(begin, end, [&](auto& state, cursor<double> at) {
            if (!labelled(at)) return;
            state.sum[0] += 1;
            state.maximum[0] = math::max(state.maximum[0], static_cast<double>(at.i));
        });
        team.template each<double>(begin, end, [&](cursor<double> at) {
            const bool counts = labelled(at) && (!which.last_only || static_cast<double>(at.i) == found.maximum[0]);
            mask[at.i] = counts ? M(1) : M(0);
        });
        const auto steps = static_cast<std::int64_t>(found.sum[0]);
        return which.last_only && steps > 1 ? 1 : steps;
    }
};

}  // namespace detail

// mask[t] = 1 at the labelled, active positions, else 0. Returns how many there are (executors of another memory: where that
// number will be).
template <class Exec, shape Shape, class Labels, class Mask>
detail::total_of<Exec, std::int64_t> mark_steps(const Exec& exec, const Shape& layout, const Labels& labels, step_labels which,
                                                Mask&& mask) {
    constexpr const char* function = "mark_steps";
    const view y(labels);
    const view m(mask);
    using L = std::remove_cvref_t<decltype(y[0])>;
    using M = std::remove_reference_t<decltype(m[0])>;
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(detail::check_tokens(function, "labels", layout, y),
                                     detail::check_tokens(function, "mask", layout, m),
                                     detail::check_reach(exec, function, detail::named("labels", y), detail::named("mask", m))));
    return detail::fold_rows<std::int64_t>(exec, layout.rows(), detail::step_rows<Shape, L, M>{layout, y.data(), which, m.data()});
}
template <shape Shape, class Labels, class Mask>
std::int64_t mark_steps(const Shape& layout, const Labels& labels, step_labels which, Mask&& mask) {
    return mark_steps(serial{}, layout, labels, which, mask);
}

namespace detail {

// The two-class form: z = logits[2t + 1] - logits[2t], and the slope goes to both with opposite signs.
template <class Shape, class T, class L, class Out>
struct two_class_rows {
    Shape layout;
    view<T> logits;
    view<L> labels;
    view<Out> d;
    double scale;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD tally<3>::state<double> operator()(Team& team, std::int64_t row) const {
        using V = double;  // steps are few, and pairs of logits do not fill packs
        return team.template fold<tally<3>, V>(
            layout.begin(row), layout.end(row), [&](auto& state, cursor<V> at) { this->one_position(state, at); });
    }

private:
    template <class State, class V>
    GRPO_HD void one_position(State& state, cursor<V> at) const {
        const bool use = layout.active(at);
        V slope = V(0);
        if (use) {
            const V z = static_cast<V>(logits[2 * at.i + 1]) - static_cast<V>(logits[2 * at.i]);
            const dual<V, 1> f = step_cross_entropy{}(
                step<dual<V, 1>>{dual<V, 1>::variable(z, 0), static_cast<V>(labels[at.i])});
            state.sum[0] = state.sum[0] + static_cast<double>(f.v);
            state.sum[1] = state.sum[1] + 1.0;
            if (is_nonfinite(z)) {
                state.sum[2] = state.sum[2] + 1.0;
                if (at.i < state.first) state.first = at.i;
            }
            slope = static_cast<V>(scale) * f.d[0];
        }
        if (d.data() == nullptr) return;
        d[2 * at.i] = static_cast<Out>(use ? -slope : V(0));
        d[2 * at.i + 1] = static_cast<Out>(slope);
    }
};

// One row's sums: loss, steps, non-finite steps.
struct add_steps {
    GRPO_HD void operator()(loss_result& onto, const tally<3>::state<double>& row) const {
        const std::int64_t steps = static_cast<std::int64_t>(row.sum[1]);
        onto.sum += row.sum[0];
        onto.weight += row.sum[1];
        onto.count.sequences += 1;
        onto.count.nonempty += steps > 0 ? 1 : 0;
        onto.count.tokens += steps;
        onto.nonfinite += static_cast<std::int64_t>(row.sum[2]);
        if (onto.first_nonfinite < 0 && row.first != no_index) onto.first_nonfinite = row.first;
    }
    GRPO_HD static void merge(loss_result& onto, const loss_result& later) { onto.merge(later); }
};

}  // namespace detail

// Cross-entropy of two-class logits [positions, 2] at the active positions of the shape (the steps, see mark_steps): what a
// process reward model is trained with (cf. arXiv 2211.14275; TRL's PRM trainer). Label 1 means that the step is right.
// The loss is result.loss(denominator), usually the number of steps; d_logits, [positions, 2], may be an empty view. (An
// executor of another memory returns where the result will be.)
template <class Exec, shape Shape, class X, class Labels, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
detail::loss_target<Exec> step_loss(Exec&& exec, const Shape& layout, const X& logits, const Labels& labels, double denominator,
                      Out&& d_logits) {
    constexpr const char* function = "step_loss";
    const view x(logits);
    const view y(labels);
    const view d(d_logits);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(
        detail::wrong_size(function, "logits", x.size(), 2 * layout.extent(), "logits (two per position)"),
        detail::check_tokens(function, "labels", layout, y), detail::below(function, "denominator", denominator, 0.0)));
    if (!d.empty()) {
        detail::require(
            detail::wrong_size(function, "d_logits", d.size(), 2 * layout.extent(), "logits (two per position)"));
    }
    detail::require(
        detail::check_reach(exec, function, detail::named("logits", x), detail::named("labels", y), detail::named("d_logits", d)));
    using T = std::remove_reference_t<decltype(x[0])>;
    using L = std::remove_reference_t<decltype(y[0])>;
    using D = std::remove_reference_t<decltype(d[0])>;
    const double scale = denominator > 0 ? 1.0 / denominator : 0.0;
    return detail::fold_rows<loss_result>(exec, layout.rows(), detail::two_class_rows<Shape, T, L, D>{layout, x, y, d, scale},
                                          detail::add_steps{});
}
template <shape Shape, class X, class Labels, class Out>
loss_result step_loss(const Shape& layout, const X& logits, const Labels& labels, double denominator, Out&& d_logits) {
    return step_loss(serial{}, layout, logits, labels, denominator, d_logits);
}

}  // namespace grpo::inline v0
