// GDPO (arXiv 2601.05242): every reward function is normalised within its groups on its own, the results are mixed, and
// the mixture is normalised over the batch.
#pragma once

#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/whiten.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// reward is key-major: reward[k·sequences + i]; weight has one entry per key. `valid` (0 where that key cannot score
// the sequence) and `repeat` (how often a sequence counts in the batch statistics; its active tokens for verl's
// token-level whitening) may be left empty.
template <class T, class Flag = std::uint8_t>
struct gdpo_inputs {
    view<const T> reward{};
    view<const T> weight{};
    view<const Flag> valid{};
    view<const std::int64_t> repeat{};
};

// TRL's: per key (r - mean)/(std1 + 1e-4), then the same over the samples. NeMo RL: leave-one-out, eps 0 in the batch.
// verl: eps 1e-6, then {.eps = 1e-8, .placement = inside} over the tokens.
struct gdpo_options {
    group_options group{.eps = 1e-4};
    whiten_options batch{.ddof = 1, .eps = 1e-4, .placement = eps_placement::outside, .center = true};
};

namespace detail {

// n entries side by side, `width` of them a row.
struct pieces : shape_base<pieces> {
    std::int64_t n = 0;
    std::int64_t width = 1;

    pieces(std::int64_t entries, std::int64_t of) : n(entries), width(of) {}
    GRPO_HD std::int64_t rows() const { return (n + width - 1) / width; }
    GRPO_HD std::int64_t begin(std::int64_t row) const { return row * width; }
    GRPO_HD std::int64_t end(std::int64_t row) const { return n < (row + 1) * width ? n : (row + 1) * width; }
    GRPO_HD std::int64_t extent() const { return n; }
};

template <class Out>
struct zero_rows {
    pieces layout;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        team.template each<double>(layout.begin(row), layout.end(row), [&](cursor<double> at) { out[at.i] = Out(0); });
    }
};

// out += weight_k A_k for one key k.
template <class T, class Scratch, class Out>
struct mixed_rows {
    pieces layout;
    const T* weight;
    const Scratch* normalised;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const double factor = static_cast<double>(*weight);
        team.template each<double>(layout.begin(row), layout.end(row), [&](cursor<double> at) {
            out[at.i] = static_cast<Out>(static_cast<double>(out[at.i]) + factor * static_cast<double>(normalised[at.i]));
        });
    }
};

// Σ_k weight_k A_k into `out`, key by key through `scratch`.
template <class Executor, class Groups, class T, class Flag, class Scratch, class Out>
void mix_keys(const Executor& exec, const Groups& groups, const gdpo_inputs<T, Flag>& x, const group_options& options,
              const pieces& layout, const view<Scratch>& scratch, const view<Out>& out) {
    const std::int64_t n = layout.n;
    exec.teams(layout.rows(), zero_rows<Out>{layout, out.data()});
    for (std::int64_t k = 0; k < x.weight.size(); ++k) {
        const view<const T> reward(x.reward.data() + k * n, n);
        if (x.valid.data() == nullptr) {
            group_normalised(exec, groups, reward, scratch, options);
        } else {
            group_normalised(exec, groups.where(view<const Flag>(x.valid.data() + k * n, n)), reward, scratch, options);
        }
        exec.teams(layout.rows(), mixed_rows<T, Scratch, Out>{layout, x.weight.data() + k, scratch.data(), out.data()});
    }
}

// How often sample i counts: 0 if no key can score it.
template <class T, class Flag>
GRPO_HD double times_counted(const gdpo_inputs<T, Flag>& x, std::int64_t i, std::int64_t n) {
    bool scored = x.valid.data() == nullptr;
    for (std::int64_t k = 0; !scored && k < x.weight.size(); ++k) scored = x.valid[k * n + i] != Flag(0);
    if (!scored) return 0.0;
    return x.repeat.data() == nullptr ? 1.0 : static_cast<double>(x.repeat[i]);
}

// The moments of the mixture, each sample as often as it counts.
template <class T, class Flag, class Out>
struct counted_moments {
    pieces layout;
    gdpo_inputs<T, Flag> x;
    const Out* mixed;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }
    template <class Team>
    GRPO_HD moments::state<double> operator()(Team& team, std::int64_t row) const {
        return team.template fold<moments, double>(layout.begin(row), layout.end(row), [&](auto& state, cursor<double> at) {
            const double times = times_counted(x, at.i, layout.n);
            if (times > 0) moments::merge(state, moments::state<double>{times, static_cast<double>(mixed[at.i]), 0.0});
        });
    }
};

// On the host: two passes, the second about the mean.
template <class T, class Flag, class Out>
whitening whitening_of_samples(const gdpo_inputs<T, Flag>& x, const Out* a, std::int64_t n, const whiten_options& options) {
    double weight = 0;
    double sum = 0;
    const double origin = n > 0 ? static_cast<double>(a[0]) : 0.0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double times = times_counted(x, i, n);
        weight += times;
        sum += times * (static_cast<double>(a[i]) - origin);
    }
    const double mean = origin + sum / (weight > 0 ? weight : 1.0);
    double m2 = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double d = static_cast<double>(a[i]) - mean;
        m2 += times_counted(x, i, n) * d * d;
    }
    return {mean, variance_of(m2, weight, options.ddof), options};
}

template <class T, class Flag, class Out, class How>
struct whitened_samples {
    pieces layout;
    gdpo_inputs<T, Flag> x;  // without `repeat`
    Out* advantage;
    How how;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const whitening w = how;
        team.template each<double>(layout.begin(row), layout.end(row), [&](cursor<double> at) {
            const bool scored = times_counted(x, at.i, layout.n) > 0;
            const double white = (static_cast<double>(advantage[at.i]) - w.mean) * w.factor + w.added;
            advantage[at.i] = static_cast<Out>(scored ? white : 0.0);
        });
    }
};

}  // namespace detail

// Writes one advantage per sequence; `scratch` is memory of one entry per sequence. A sample without any scorable key
// stays out of the batch statistics and gets 0. groups: without a mask of its own; validity goes by key.
template <class Executor, shape Groups, class T, class Flag, class Scratch, class Advantage>
void gdpo(const Executor& exec, const Groups& groups, const gdpo_inputs<T, Flag>& x, Scratch&& scratch,
          Advantage&& advantage, const gdpo_options& options = {}) {
    constexpr const char* function = "gdpo";
    const view s(scratch);
    const view a(advantage);
    detail::require(detail::check_shape(exec, function, groups));
    const std::int64_t n = groups.extent();
    const std::int64_t all = n * x.weight.size();
    detail::require(options.group.validate(function));
    detail::require(options.batch.validate(function));
    detail::require(detail::wants(function, "reward", x.reward, all, "sequences times keys"));
    detail::require(detail::may_have(function, "valid", x.valid, all, "sequences times keys"));
    detail::require(detail::may_have(function, "repeat", x.repeat, n, "sequences"));
    detail::require(detail::wants(function, "scratch", s, n, "sequences"));
    detail::require(detail::wants(function, "advantage", a, n, "sequences"));
    using Out = detail::plain<decltype(a[0])>;
    detail::require(detail::check_reach(exec, function, detail::named("reward", x.reward), detail::named("weight", x.weight),
                                        detail::named("valid", x.valid), detail::named("repeat", x.repeat),
                                        detail::named("scratch", s), detail::named("advantage", a)));
    const detail::pieces layout(n, detail::on_host<Executor> ? (n > 0 ? n : 1) : 1024);
    detail::mix_keys(exec, groups, x, options.group, layout, s, a);
    const auto apply = [&](const auto& how) {
        exec.teams(layout.rows(), detail::whitened_samples<T, Flag, Out, detail::plain<decltype(how)>>{
                                      layout, {x.reward, x.weight, x.valid, {}}, a.data(), how});
    };
    if constexpr (detail::on_host<Executor>) {
        apply(detail::whitening_of_samples(x, a.data(), n, options.batch));
    } else {
        const detail::counted_moments<T, Flag, Out> rows{layout, x, a.data()};
        apply(detail::measured_whitening{
            detail::fold_rows<moments::state<double>>(exec, layout.rows(), rows, detail::add_moments{}), options.batch});
    }
}
template <shape Groups, class T, class Flag, class Scratch, class Advantage>
void gdpo(const Groups& groups, const gdpo_inputs<T, Flag>& x, Scratch&& scratch, Advantage&& advantage,
          const gdpo_options& options = {}) {
    gdpo(serial{}, groups, x, scratch, advantage, options);
}

}  // namespace grpo::inline v0
