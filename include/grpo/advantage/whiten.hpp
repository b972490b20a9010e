// Whitening: every active entry by one mean and one standard deviation of the whole batch.
//
//   grpo::whiten(shape, advantages, whitened);                          // verl, TRL, tunix, NeMo RL (GAE)
//   grpo::whiten(shape, rewards, whitened, {.center = false});          // the mean added back
//
// OpenRLHF: {.ddof = 0, .eps = 1e-4, .placement = eps_placement::floor}.
// AReaL:    {.eps = 1e-5, .placement = eps_placement::outside}.
#pragma once

#include <cstdint>

#include <grpo/advantage/moments.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

struct whiten_options {
    int ddof = 1;
    double eps = 1e-8;
    eps_placement placement = eps_placement::inside;
    bool center = true;  // false: the mean is added back after scaling

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "ddof", ddof, 0), detail::below(function, "eps", eps, 0));
    }
};

namespace detail {

// What whitening does to x: (x - mean)·factor + added.
struct whitening {
    double mean = 0;
    double factor = 1;
    double added = 0;

    whitening() = default;
    GRPO_HD whitening(double mu, double variance, const whiten_options& o)
        : mean(mu), factor(normalising_factor(variance, o.eps, o.placement)), added(o.center ? 0.0 : mu) {}
};

// Count, Σ(x - origin) and Σ(x - origin)² of one row, in double.
template <class Shape, class T>
struct centred_rows {
    Shape layout;
    const T* x;
    double origin;

    struct sums {
        double n = 0;
        double first = 0;
        double second = 0;

        GRPO_HD friend sums operator+(const sums& a, const sums& b) { return {a.n + b.n, a.first + b.first, a.second + b.second}; }
    };

    template <class Team>
    GRPO_HD sums operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<double>;
        const V zero(constant<V>(0));
        const V one(constant<V>(1));
        const V from(constant<V>(origin));
        const auto total =
            team.template fold<tally<3>, V>(layout.begin(row), layout.end(row), [&](auto& state, cursor<V> at) {
                const mask_t<V> use = layout.active(at);
                if (!any(use)) return;
                const V d = math::select<V>(use, V(at.load(x) - from), zero);
                state.sum[0] = state.sum[0] + math::select<V>(use, one, zero);
                state.sum[1] = state.sum[1] + d;
                state.sum[2] = state.sum[2] + d * d;
            });
        return {total.sum[0], total.sum[1], total.sum[2]};
    }
};

template <class Executor, class Shape, class T>
typename centred_rows<Shape, T>::sums about(const Executor& exec, const Shape& layout, const T* x, double origin) {
    using rows = centred_rows<Shape, T>;
    return fold_rows<typename rows::sums>(exec, layout.rows(), rows{layout, x, origin});
}

// The first active entry, or 0: an origin that makes both passes exact where all entries are equal.
template <class Shape, class T>
double first_active(const Shape& layout, const T* x) {
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        for (std::int64_t i = layout.begin(row); i < layout.end(row); ++i) {
            if (layout.active(cursor<double>{i})) return static_cast<double>(x[i]);
        }
    }
    return 0.0;
}

// Two passes, the second about the mean and corrected for what the mean was off (Chan, Golub and LeVeque, 1983).
template <class Executor, class Shape, class T>
whitening whitening_of(const Executor& exec, const Shape& layout, const T* x, const whiten_options& options) {
    const double origin = first_active(layout, x);
    const auto crude = about(exec, layout, x, origin);
    if (crude.n == 0) return {};
    const double mean = origin + crude.first / crude.n;
    const auto fine = about(exec, layout, x, mean);
    const double m2 = fine.second - fine.first * fine.first / fine.n;
    return {mean, variance_of(m2 > 0 ? m2 : 0.0, fine.n, options.ddof), options};
}

// The whitening by moments that will have been measured when the rows are walked.
struct measured_whitening {
    const moments::state<double>* of;
    whiten_options options;

    GRPO_HD operator whitening() const {
        if (!(of->n > 0)) return {};
        return {of->mean, moments::variance(*of, options.ddof), options};
    }
};

template <class Shape, class T, class Out, class How>
struct whitened_rows {
    Shape layout;
    const T* x;
    Out* out;
    How how;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<double>;
        const whitening w = how;
        const V mean(constant<V>(w.mean));
        const V factor(constant<V>(w.factor));
        const V added(constant<V>(w.added));
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            const mask_t<V> use = layout.active(at);
            const V white = (at.load(x) - mean) * factor + added;
            at.store(out, math::select<V>(use, white, V(constant<V>(0))));
        });
    }
};

}  // namespace detail

// Writes the whitened entries, and 0 where not active. No active entry: all 0. One, or all equal: 0 (or the mean, if it
// is added back), since the deviation is then 0 and a centred value of 0 stays 0. In place if out is x.
template <class Executor, shape Shape, class X, class Out>
void whiten(const Executor& exec, const Shape& layout, const X& x, Out&& out, const whiten_options& options = {}) {
    constexpr const char* function = "whiten";
    const view in(x);
    const view to(out);
    detail::require(options.validate(function));
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "x", in, layout.extent(), "positions"));
    detail::require(detail::wants(function, "out", to, layout.extent(), "positions"));
    using T = detail::plain<decltype(in[0])>;
    using To = detail::plain<decltype(to[0])>;
    detail::require(detail::check_reach(exec, function, detail::named("x", in), detail::named("out", to)));
    const auto apply = [&](const auto& how) {
        using rows = detail::whitened_rows<Shape, T, To, detail::plain<decltype(how)>>;
        exec.teams(layout.rows(), rows{layout, in.data(), to.data(), how});
    };
    if constexpr (detail::on_host<Executor>) {
        apply(detail::whitening_of(exec, layout, static_cast<const T*>(in.data()), options));
    } else {
        apply(detail::measured_whitening{detail::moments_of(exec, layout, in.data()), options});
    }
}

template <shape Shape, class X, class Out>
void whiten(const Shape& layout, const X& x, Out&& out, const whiten_options& options = {}) {
    whiten(serial{}, layout, x, out, options);
}

}  // namespace grpo::inline v0
