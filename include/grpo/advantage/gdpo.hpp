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

// Σ_k weight_k A_k into `out`, key by key through `scratch`.
template <class Executor, class Groups, class T, class Flag, class Scratch, class Out>
void mix_keys(const Executor& exec, const Groups& groups, const gdpo_inputs<T, Flag>& x, const group_options& options,
              const view<Scratch>& scratch, const view<Out>& out) {
    const std::int64_t n = groups.extent();
    for (std::int64_t i = 0; i < n; ++i) out[i] = Out(0);
    for (std::int64_t k = 0; k < x.weight.size(); ++k) {
        const view<const T> reward(x.reward.data() + k * n, n);
        if (x.valid.data() == nullptr) {
            group_normalised(exec, groups, reward, scratch, options);
        } else {
            group_normalised(exec, groups.where(view<const Flag>(x.valid.data() + k * n, n)), reward, scratch, options);
        }
        for (std::int64_t i = 0; i < n; ++i) {
            out[i] = static_cast<Out>(static_cast<double>(out[i]) +
                                      static_cast<double>(x.weight[k]) * static_cast<double>(scratch[i]));
        }
    }
}

// How often sample i counts: 0 if no key can score it.
template <class T, class Flag>
double times_counted(const gdpo_inputs<T, Flag>& x, std::int64_t i, std::int64_t n) {
    bool scored = x.valid.data() == nullptr;
    for (std::int64_t k = 0; !scored && k < x.weight.size(); ++k) scored = x.valid[k * n + i] != Flag(0);
    if (!scored) return 0.0;
    return x.repeat.data() == nullptr ? 1.0 : static_cast<double>(x.repeat[i]);
}

}  // namespace detail

// Writes one advantage per sequence; `scratch` is memory of one entry per sequence. A sample without any scorable key
// stays out of the batch statistics and gets 0. groups: without a mask of its own; validity goes by key.
template <class Executor, shape Groups, class T, class Flag, class Scratch, class Advantage>
void gdpo(const Executor& exec, const Groups& groups, const gdpo_inputs<T, Flag>& x, Scratch&& scratch,
          Advantage&& advantage, const gdpo_options& options = {}) {
    constexpr const char* function = "gdpo";
    const view s(scratch);
    const view a(advantage);
    const std::int64_t n = groups.extent();
    const std::int64_t all = n * x.weight.size();
    detail::require(options.group.validate(function));
    detail::require(options.batch.validate(function));
    detail::require(groups.validate(function));
    detail::require(detail::wants(function, "reward", x.reward, all, "sequences times keys"));
    detail::require(detail::may_have(function, "valid", x.valid, all, "sequences times keys"));
    detail::require(detail::may_have(function, "repeat", x.repeat, n, "sequences"));
    detail::require(detail::wants(function, "scratch", s, n, "sequences"));
    detail::require(detail::wants(function, "advantage", a, n, "sequences"));
    using Out = detail::plain<decltype(a[0])>;
    detail::mix_keys(exec, groups, x, options.group, s, a);
    double weight = 0;
    double sum = 0;
    const double origin = n > 0 ? static_cast<double>(a[0]) : 0.0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double times = detail::times_counted(x, i, n);
        weight += times;
        sum += times * (static_cast<double>(a[i]) - origin);
    }
    const double mean = origin + sum / (weight > 0 ? weight : 1.0);
    double m2 = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double d = static_cast<double>(a[i]) - mean;
        m2 += detail::times_counted(x, i, n) * d * d;
    }
    const detail::whitening how(mean, detail::variance_of(m2, weight, options.batch.ddof), options.batch);
    for (std::int64_t i = 0; i < n; ++i) {
        const bool scored =
            x.valid.data() == nullptr || detail::times_counted<T, Flag>({x.reward, x.weight, x.valid, {}}, i, n) > 0;
        const double white = (static_cast<double>(a[i]) - how.mean) * how.factor + how.added;
        a[i] = static_cast<Out>(scored ? white : 0.0);
    }
}
template <shape Groups, class T, class Flag, class Scratch, class Advantage>
void gdpo(const Groups& groups, const gdpo_inputs<T, Flag>& x, Scratch&& scratch, Advantage&& advantage,
          const gdpo_options& options = {}) {
    gdpo(serial{}, groups, x, scratch, advantage, options);
}

}  // namespace grpo::inline v0
