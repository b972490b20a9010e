// Advantages from other models: the teacher's (on-policy distillation) and A*-PO's optimal value.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// A_t = coef·(logp_teacher - logp_old), replacing the advantage (arXiv 2601.02780) or added to it (slime). Writes 0
// where not active.
enum class teacher_mode { replace, add };
struct teacher_options {
    teacher_mode mode = teacher_mode::replace;
    double coef = 1.0;
};

namespace detail {

template <class Shape, class T, class Out>
struct teacher_rows {
    Shape layout;
    const T* logp_old;
    const T* logp_teacher;
    teacher_options options;
    Out* advantage;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute_of<T, Out>>;
        const V zero(constant<V>(0));
        const V coef(constant<V>(options.coef));
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            const V before = options.mode == teacher_mode::add ? at.load(advantage) : zero;
            const V after = before + coef * (at.load(logp_teacher) - at.load(logp_old));
            at.store(advantage, math::select<V>(layout.active(at), after, zero));
        });
    }
};

// (β₂ Σ_t (logp - logp_ref) - A)² of one sequence, and its derivative in every active logp.
template <class Shape, class T, class A, class G>
struct a_star_rows {
    Shape layout;
    const T* logp;
    const T* logp_ref;
    const A* advantage;
    double beta;
    double scale;
    G* gradient;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD double operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<double>;
        const std::int64_t begin = layout.begin(row);
        const std::int64_t end = layout.end(row);
        const V zero(constant<V>(0));
        const auto total = team.template fold<tally<1>, V>(begin, end, [&](auto& state, cursor<V> at) {
            const mask_t<V> use = layout.active(at);
            if (!any(use)) return;
            state.sum[0] = state.sum[0] + math::select<V>(use, V(at.load(logp) - at.load(logp_ref)), zero);
        });
        using S = dual<double, 1>;
        const S gap = S::variable(total.sum[0], 0);
        const S error = math::square(S(gap * beta - static_cast<double>(advantage[row])));
        const V slope(constant<V>(error.d[0] * scale));
        if (gradient != nullptr) {
            team.template each<V>(
                begin, end, [&](cursor<V> at) { at.store(gradient, math::select<V>(layout.active(at), slope, zero)); });
        }
        return error.v;
    }
};
// The same, as a share of the mean: what only a kernel's total can hold.
template <class Rows>
struct shared_rows {
    Rows of;

    GRPO_HD std::int64_t entries() const { return of.entries(); }
    template <class Team>
    GRPO_HD double operator()(Team& team, std::int64_t row) const {
        return of(team, row) * of.scale;
    }
};

}  // namespace detail

template <class Executor, shape Shape, class LogpOld, class LogpTeacher, class Advantage>
void teacher_advantage(const Executor& exec, const Shape& layout, const LogpOld& logp_old,
                       const LogpTeacher& logp_teacher, Advantage&& advantage, const teacher_options& options = {}) {
    constexpr const char* function = "teacher_advantage";
    const view old(logp_old);
    const view teacher(logp_teacher);
    const view a(advantage);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "logp_old", old, layout.extent(), "positions"));
    detail::require(detail::wants(function, "logp_teacher", teacher, layout.extent(), "positions"));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    using T = detail::plain<decltype(old[0])>;
    using Out = detail::plain<decltype(a[0])>;
    detail::require(detail::check_reach(exec, function, detail::named("logp_old", old), detail::named("logp_teacher", teacher),
                                        detail::named("advantage", a)));
    exec.teams(layout.rows(),
               detail::teacher_rows<Shape, T, Out>{layout, old.data(), teacher.data(), options, a.data()});
}
template <shape Shape, class LogpOld, class LogpTeacher, class Advantage>
void teacher_advantage(const Shape& layout, const LogpOld& logp_old, const LogpTeacher& logp_teacher,
                       Advantage&& advantage, const teacher_options& options = {}) {
    teacher_advantage(serial{}, layout, logp_old, logp_teacher, advantage, options);
}

// A*-PO (arXiv 2505.20686). V* = beta1·(log Σ_j e^(r_j / beta1) - log n) of each prompt, over its n offline samples
// from the reference policy; A_i = r_i - V*. references: a shape over the offline samples with one row per group; a
// prompt without any has V* = 0.
template <shape Groups, shape References, class Reward, class ReferenceReward, class Optimal, class Advantage>
void a_star_advantage(const Groups& groups, const References& references, double beta1, const Reward& reward,
                      const ReferenceReward& reference_reward, Optimal&& optimal_value, Advantage&& advantage) {
    constexpr const char* function = "a_star_advantage";
    const view r(reward);
    const view offline(reference_reward);
    const view star(optimal_value);
    const view a(advantage);
    detail::require(beta1 > 0 ? problem{}
                              : detail::complain(function, "beta1", "is %g, but must be above %g", beta1, 0.0));
    detail::require(detail::check_groups(function, groups, r, a, singleton_rule::zero));
    detail::require(references.validate(function));
    detail::require(detail::wrong_size(function, "references' rows", references.rows(), groups.rows(), "groups"));
    detail::require(detail::wants(function, "reference_reward", offline, references.extent(), "offline samples"));
    detail::require(detail::wants(function, "optimal_value", star, groups.rows(), "groups"));
    detail::require(detail::not_finite(function, "reference_reward", references, offline.data()));
    using Star = detail::plain<decltype(star[0])>;
    using Out = detail::plain<decltype(a[0])>;
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        log_sum_exp::state<double> state;
        for (std::int64_t j = references.begin(row); j < references.end(row); ++j) {
            if (references.active(cursor<double>{j})) log_sum_exp::add(state, static_cast<double>(offline[j]) / beta1);
        }
        const std::int64_t n = references.count_active(row);
        const double best = n == 0 ? 0.0 : beta1 * (log_sum_exp::result(state) - ::log(static_cast<double>(n)));
        star[row] = static_cast<Star>(best);
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            const bool counts = groups.active(cursor<double>{i});
            a[i] = static_cast<Out>(counts ? static_cast<double>(r[i]) - best : 0.0);
        }
    }
}

// Its loss: the mean over all sequences, empty ones included, of (beta2·(Σ logp - Σ logp_ref) - A)². `gradient` (per
// position, +0.0 where not active; may be an empty view) receives its derivatives in logp. An executor of another memory
// returns where the loss will be.
template <class Executor, shape Shape, class Logp, class LogpRef, class Advantage, class Gradient>
auto a_star_loss(const Executor& exec, const Shape& layout, double beta2, const Logp& logp_now,
                   const LogpRef& logp_ref, const Advantage& advantage, Gradient&& gradient_out) {
    constexpr const char* function = "a_star_loss";
    const view now(logp_now);
    const view ref(logp_ref);
    const view a(advantage);
    const view g(gradient_out);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "logp", now, layout.extent(), "positions"));
    detail::require(detail::wants(function, "logp_ref", ref, layout.extent(), "positions"));
    detail::require(detail::wants(function, "advantage", a, layout.rows(), "sequences"));
    detail::require(detail::may_have(function, "gradient", g, layout.extent(), "positions"));
    const double share = layout.rows() > 0 ? 1.0 / static_cast<double>(layout.rows()) : 0.0;
    detail::require(detail::check_reach(exec, function, detail::named("logp", now), detail::named("logp_ref", ref),
                                        detail::named("advantage", a), detail::named("gradient", g)));
    using rows = detail::a_star_rows<Shape, detail::plain<decltype(now[0])>, detail::plain<decltype(a[0])>,
                                     detail::plain<decltype(g[0])>>;
    const rows body{layout, now.data(), ref.data(), a.data(), beta2, share, g.data()};
    if constexpr (detail::on_host<Executor>) return detail::fold_rows<double>(exec, layout.rows(), body) * share;
    else return detail::fold_rows<double>(exec, layout.rows(), detail::shared_rows<rows>{body});
}
template <shape Shape, class Logp, class LogpRef, class Advantage, class Gradient>
double a_star_loss(const Shape& layout, double beta2, const Logp& logp_now, const LogpRef& logp_ref,
                   const Advantage& advantage, Gradient&& gradient_out) {
    return a_star_loss(serial{}, layout, beta2, logp_now, logp_ref, advantage, gradient_out);
}

}  // namespace grpo::inline v0
