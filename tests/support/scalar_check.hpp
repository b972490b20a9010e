// Every term on a foreign scalar against grpo's own dual: value and slope, to 1e-12.
//
// A foreign scalar is described by a struct with
//   type                                                the scalar
//   static constexpr int slopes                         how many derivatives one evaluation gives
//   type variable(double v, int k)                      k < 0: a number without derivatives
//   double value(const type& y)
//   std::vector<double> derivatives(const type& y)      one entry per slope (empty: all zero)
// and is evaluated once for each group of `slopes` inputs.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <support/all_terms.hpp>

namespace scalar_check {

inline constexpr int inputs = 6;  // logp, entropy, value, sums[0], sums[1], sums[2]

// One token's numbers, in the order of the differentiable inputs and then the constants.
struct point {
    double x[inputs];
    double logp_old, logp_ref, logp_rollout, advantage, weight, keep, label, value_old, returns, length;
};

// Points on both sides of every clip and mask; some sit exactly on a kink, where both scalars must choose alike.
inline std::vector<point> points() {
    std::vector<point> out;
    const double ratios[] = {-25, -0.5, -0.21, 0, 0.1, 0.35, 0.6, 22};
    unsigned n = 0;
    for (const double d : ratios) {
        for (const double advantage : {-1.5, 0.0, 0.75}) {
            for (const double shift : {-0.4, 0.02, 0.0}) {
                n += 1;
                const double logp = -1.25 - 0.125 * (n % 4);
                const double critic = 0.5 - 0.25 * (n % 5);
                out.push_back({{logp, 0.75, critic, 3 * d, 2.5 * d, advantage * 4}, logp - d, logp - shift, logp - d + shift,
                               advantage, n % 3 == 0 ? 0.0 : 0.8, n % 2 == 0 ? 0.0 : 1.0, n % 4 < 2 ? 0.0 : 1.0,
                               critic + shift, 0.125 * (n % 7), 4.0});
            }
        }
    }
    return out;
}

template <class S>
grpo::token<S> constants_of(const point& p) {
    grpo::token<S> t;
    t.logp_old = grpo::constant<S>(p.logp_old);
    t.logp_ref = grpo::constant<S>(p.logp_ref);
    t.logp_rollout = grpo::constant<S>(p.logp_rollout);
    t.advantage = grpo::constant<S>(p.advantage);
    t.weight = grpo::constant<S>(p.weight);
    t.keep = grpo::constant<S>(p.keep);
    t.label = grpo::constant<S>(p.label);
    t.value_old = grpo::constant<S>(p.value_old);
    t.returns = grpo::constant<S>(p.returns);
    t.length = grpo::constant<S>(p.length);
    return t;
}

// Results of a term at a point: its value, then its statistics; each followed by its derivatives.
template <class S>
struct outputs {
    static constexpr int most = 4;
    S y[most] = {S(grpo::constant<S>(0)), S(grpo::constant<S>(0)), S(grpo::constant<S>(0)), S(grpo::constant<S>(0))};
    int count = 1;
};

template <class S, class Term, class Variable>
outputs<S> evaluate(const Term& term, const point& p, Variable&& variable) {
    grpo::token<S> t = constants_of<S>(p);
    t.logp = variable(p.x[0], 0);
    t.entropy = variable(p.x[1], 1);
    t.value = variable(p.x[2], 2);
    const S sums[] = {variable(p.x[3], 3), variable(p.x[4], 4), variable(p.x[5], 5)};
    t.sums = sums;
    outputs<S> r;
    r.y[0] = term(t);
    constexpr int statistics = grpo::detail::statistics_of<Term>();
    static_assert(statistics < outputs<S>::most);
    if constexpr (statistics > 0) {
        S g[statistics];
        grpo::detail::write_statistics(term, t, g);
        for (int k = 0; k < statistics; ++k) r.y[r.count++] = g[k];
    }
    return r;
}

inline bool close(double a, double b) {
    if (a == b || (std::isnan(a) && std::isnan(b))) return true;
    return std::abs(a - b) <= 1e-12 * std::max(1.0, std::abs(b));
}

template <class Foreign, class Term>
std::string compare(const Term& term, const point& p) {
    using D = grpo::dual<double, inputs>;
    using S = typename Foreign::type;
    const outputs<D> ours = evaluate<D>(term, p, [](double v, int k) { return D::variable(v, k); });
    for (int first = 0; first < inputs; first += Foreign::slopes) {
        const auto seed = [&](double v, int k) {
            return Foreign::variable(v, k >= first && k < first + Foreign::slopes ? k - first : -1);
        };
        const outputs<S> theirs = evaluate<S>(term, p, seed);
        for (int o = 0; o < ours.count; ++o) {
            const double v = Foreign::value(theirs.y[o]);
            if (!close(v, ours.y[o].v)) return "value " + std::to_string(v) + " != " + std::to_string(ours.y[o].v);
            const std::vector<double> d = Foreign::derivatives(theirs.y[o]);
            for (int k = 0; k < Foreign::slopes && first + k < inputs; ++k) {
                const double slope = d.empty() ? 0.0 : d[static_cast<std::size_t>(k)];
                if (close(slope, ours.y[o].d[first + k])) continue;
                return "slope " + std::to_string(first + k) + " of output " + std::to_string(o) + ": " +
                       std::to_string(slope) + " != " + std::to_string(ours.y[o].d[first + k]);
            }
        }
    }
    return "";
}

struct each_term {
    template <class Foreign, class Term>
    static void check(const char* name, const Term& term) {
        INFO(std::string(name));
        int i = 0;
        for (const point& p : points()) {
            INFO("point " << i++);
            CHECK(compare<Foreign>(term, p) == "");
        }
    }
};

template <class Foreign>
void every_term() {
    all_terms::for_each([](const char* name, const auto& term) { each_term::check<Foreign>(name, term); });
}

}  // namespace scalar_check
