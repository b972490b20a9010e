// The optimal token baseline (arXiv 2602.07078): b_t = Σ_i G_t W_t / (Σ_i W_t + eps) over the group's sequences, with
//   G_t = Σ_{u>=t} r_u,  w_t = (1 - 2 π_t + Σ_v π_t(v)²)·weight_t²,  W_t = Σ_{u<=t} w_u,  A_t = G_t - b_t.
//
// w_t is at least (1 - π_t)²·weight_t², since Σ_v π_t(v)² has π_t² among its terms. That is enforced: for tokens that are nearly
// certain a Σ of floats is rounded by more than 1 - 2 π_t + Σ is, which then may be negative, and b_t beyond every G_t.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/advantage/layout.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/advantage/returns.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// One per token; weight (a rollout-correction weight) may be left empty.
template <class T>
struct otb_inputs {
    view<const T> reward{};
    view<const T> logp_old{};                 // π_t = e^logp_old
    view<const T> sum_probability_squared{};  // Σ_v π_t(v)² over the vocabulary
    view<const T> weight{};
};

enum class token_alignment {
    position,       // sequences meet at equal distance from their row's start
    active_tokens,  // at equal rank among their active tokens: multi-turn, where tool output lies in between
};

struct otb_options {
    token_alignment align = token_alignment::position;
    double eps = 1e-8;
};

namespace detail {

// A group at a time, by one lane, in place: `baseline` holds W and `advantage` holds G, both 0 where nothing counts, until the
// column is done; with active_tokens they are moved to the left of the row first, and back at the end.
template <class Groups, class Shape, class T, class A, class B>
struct otb_groups {
    Groups groups;
    Shape layout;
    otb_inputs<T> x;
    otb_options options;
    A* advantage;
    B* baseline;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t group) const {
        if (!team.leader()) return;
        std::int64_t most = 0;
        std::int64_t second = 0;
        std::int64_t width = 0;
        const std::int64_t begin = groups.begin(group);
        const std::int64_t end = groups.end(group);
        for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t n = weigh(row);
            second = most < n ? most : (second < n ? n : second);
            most = most < n ? n : most;
            const std::int64_t length = layout.end(row) - layout.begin(row);
            width = width < length ? length : width;
        }
        // A lone sequence has no peers anywhere, a strictly longest one none beyond the second longest.
        const std::int64_t peers_until = end - begin == 1 ? 0 : (second < most ? second : width);
        for (std::int64_t t = 0; t < width; ++t) column(begin, end, t, most, peers_until);
        for (std::int64_t row = begin; row < end; ++row) finish(row);
    }

private:
    GRPO_HD bool packed() const { return options.align == token_alignment::active_tokens; }

    // W and G of one row, and how many active tokens it has. The returns already lie in `advantage`.
    GRPO_HD std::int64_t weigh(std::int64_t row) const {
        const std::int64_t begin = layout.begin(row);
        std::int64_t n = 0;
        double sum = 0;
        for (std::int64_t i = begin; i < layout.end(row); ++i) {
            const bool counts = layout.active(cursor<double>{i});
            const A g = advantage[i];
            if (!counts || packed()) {
                advantage[i] = A(0);
                baseline[i] = B(0);
            }
            if (!counts) continue;
            const double extra = x.weight.data() == nullptr ? 1.0 : static_cast<double>(x.weight[i]);
            const double p = ::exp(static_cast<double>(x.logp_old[i]));
            const double least = (1.0 - p) * (1.0 - p);
            const double given = 1.0 - 2.0 * p + static_cast<double>(x.sum_probability_squared[i]);
            sum += (given < least ? least : given) * extra * extra;
            const std::int64_t to = packed() ? begin + n : i;
            advantage[to] = g;
            baseline[to] = static_cast<B>(sum);
            ++n;
        }
        return n;
    }
    GRPO_HD void column(std::int64_t begin, std::int64_t end, std::int64_t t, std::int64_t most,
                        std::int64_t peers_until) const {
        double top = 0;
        double bottom = 0;
        for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t i = layout.begin(row) + t;
            if (i >= layout.end(row)) continue;
            top += static_cast<double>(advantage[i]) * static_cast<double>(baseline[i]);
            bottom += static_cast<double>(baseline[i]);
        }
        const double shared = bottom + options.eps > 0 ? top / (bottom + options.eps) : 0.0;
        for (std::int64_t row = begin; row < end; ++row) {
            const std::int64_t i = layout.begin(row) + t;
            if (i >= layout.end(row)) continue;
            const bool alone = t >= peers_until && layout.count_active(row) == most;
            const double b = alone ? 0.0 : shared;
            baseline[i] = static_cast<B>(b);
            advantage[i] = static_cast<A>(static_cast<double>(advantage[i]) - b);
        }
    }
    // Back to where the active tokens are; 0 elsewhere.
    GRPO_HD void finish(std::int64_t row) const {
        std::int64_t from = layout.begin(row) + layout.count_active(row);
        for (std::int64_t i = layout.end(row); i-- > layout.begin(row);) {
            const bool counts = layout.active(cursor<double>{i});
            if (counts && packed()) {
                --from;
                advantage[i] = advantage[from];
                baseline[i] = baseline[from];
            }
            if (!counts) {
                advantage[i] = A(0);
                baseline[i] = B(0);
            }
        }
    }
};

}  // namespace detail

// Writes advantages, returns G and baselines; 0 where not active. groups: over the rows of `layout`. A group of one has
// baseline 0; the strictly longest sequence (by active tokens) has baseline 0 from the second longest's length on.
template <class Executor, shape Groups, shape Shape, class T, class Advantage, class Returns, class Baseline>
void optimal_token_baseline(const Executor& exec, const Groups& groups, const Shape& layout, const otb_inputs<T>& x,
                            Advantage&& advantage, Returns&& returns, Baseline&& baseline,
                            const otb_options& options = {}) {
    constexpr const char* function = "optimal_token_baseline";
    const view a(advantage);
    const view g(returns);
    const view b(baseline);
    detail::require(detail::check_shape(exec, function, groups));
    detail::require(detail::check_shape(exec, function, layout));
    const std::int64_t n = layout.extent();
    detail::require(detail::below(function, "eps", options.eps, 0));
    detail::require(detail::wrong_size(function, "layout's rows", layout.rows(), groups.extent(), "sequences"));
    detail::require(detail::wants(function, "reward", x.reward, n, "positions"));
    detail::require(detail::wants(function, "logp_old", x.logp_old, n, "positions"));
    detail::require(detail::wants(function, "sum_probability_squared", x.sum_probability_squared, n, "positions"));
    detail::require(detail::may_have(function, "weight", x.weight, n, "positions"));
    detail::require(detail::wants(function, "advantage", a, n, "positions"));
    detail::require(detail::wants(function, "returns", g, n, "positions"));
    detail::require(detail::wants(function, "baseline", b, n, "positions"));
    detail::require(detail::check_reach(exec, function, detail::named("reward", x.reward), detail::named("logp_old", x.logp_old),
                                        detail::named("sum_probability_squared", x.sum_probability_squared),
                                        detail::named("weight", x.weight), detail::named("advantage", a),
                                        detail::named("returns", g), detail::named("baseline", b)));
    using A = detail::plain<decltype(a[0])>;
    using B = detail::plain<decltype(b[0])>;
    discounted_returns(exec, layout, 1.0, x.reward, g);
    discounted_returns(exec, layout, 1.0, x.reward, a);
    exec.teams(groups.rows(),
               detail::otb_groups<Groups, Shape, T, A, B>{groups, layout, x, options, a.data(), b.data()});
}
template <shape Groups, shape Shape, class T, class Advantage, class Returns, class Baseline>
void optimal_token_baseline(const Groups& groups, const Shape& layout, const otb_inputs<T>& x, Advantage&& advantage,
                            Returns&& returns, Baseline&& baseline, const otb_options& options = {}) {
    optimal_token_baseline(serial{}, groups, layout, x, advantage, returns, baseline, options);
}

}  // namespace grpo::inline v0
