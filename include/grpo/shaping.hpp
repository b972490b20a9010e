// Shaping: what happens to rewards between the verifier and the advantages.
//
//   shape_rewards(reward, reward_clip{} | linear_rescale{}, out)
//   shape_rewards(reward, stop_properly{0.5}, truncated, out)
//   shape_rewards(reward, missing_eos{1.0}, ended, out)
//   overlong_penalty(length, overlong{}, penalty)      repetition_penalty(shape, tokens, rule, workspace, penalty)
//   weighted_rewards(reward, weights, out, valid)      mask_truncated(shape, truncated, mask)
//
// All but repetition_penalty, which is the host's, have an executor as an optional first argument.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/detail/entries.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shaping/rewards.hpp>

namespace grpo::inline v0 {

namespace detail {

template <class T, class W, class Out, class Valid>
struct weighted_entries {
    const T* reward;
    view<const W> weights;
    std::int64_t n;
    Out* out;
    Valid* valid;

    GRPO_HD void operator()(std::int64_t i) const {
        double sum = 0;
        bool scored = false;
        for (std::int64_t k = 0; k < weights.size(); ++k) {
            const double r = static_cast<double>(reward[k * n + i]);
            if (is_nan(r)) continue;
            sum += static_cast<double>(weights[k]) * r;
            scored = true;
        }
        out[i] = static_cast<Out>(sum);
        valid[i] = static_cast<Valid>(scored ? 1 : 0);
    }
};

// 1 for a sequence that was not truncated.
template <class Flag, class Mask>
struct whole_sequences {
    const Flag* truncated;

    GRPO_HD Mask operator()(std::int64_t row) const { return static_cast<Mask>(truncated[row] == Flag(0) ? 1 : 0); }
};

}  // namespace detail

// out[i] = Σ_k weights[k] · reward[k·n + i] over the keys k that have a score there: NaN means none. valid[i] = 1 where any
// has, else 0 and out[i] = 0; give it to the advantages as the validity mask.
template <class Executor, class Rewards, class Weights, class Out, class Valid>
void weighted_rewards(const Executor& exec, const Rewards& reward, const Weights& weights, Out&& out, Valid&& valid) {
    constexpr const char* function = "weighted_rewards";
    const view x(reward);
    const view w(weights);
    const view to(out);
    const view flag(valid);
    const std::int64_t n = to.size();
    using T = std::remove_cvref_t<decltype(x[0])>;
    using W = std::remove_cvref_t<decltype(w[0])>;
    using To = std::remove_reference_t<decltype(to[0])>;
    using M = std::remove_reference_t<decltype(flag[0])>;
    detail::require(detail::first_of(detail::validate_entries(exec, function, "valid", flag, n),
                                     detail::wrong_size(function, "reward", x.size(), w.size() * n, "scores"),
                                     detail::null_pointer(function, "reward", x.data(), x.size()),
                                     detail::null_pointer(function, "weights", w.data(), w.size()),
                                     detail::null_pointer(function, "out", to.data(), n),
                                     detail::check_reach(exec, function, detail::named("reward", x), detail::named("weights", w),
                                                         detail::named("out", to))));
    detail::walk_entries(exec, n, detail::weighted_entries<T, W, To, M>{x.data(), {w.data(), w.size()}, n, to.data(), flag.data()});
}
template <class Rewards, class Weights, class Out, class Valid>
void weighted_rewards(const Rewards& reward, const Weights& weights, Out&& out, Valid&& valid) {
    weighted_rewards(serial{}, reward, weights, out, valid);
}

// mask[t] = 1 for the active tokens of sequences that were not truncated, else 0. `mask` may be the shape's own.
template <class Executor, shape Shape, class Flags, class Mask>
void mask_truncated(const Executor& exec, const Shape& layout, const Flags& truncated, Mask&& mask) {
    constexpr const char* function = "mask_truncated";
    const view cut(truncated);
    const view out(mask);
    using F = std::remove_cvref_t<decltype(cut[0])>;
    using M = std::remove_reference_t<decltype(out[0])>;
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(detail::validate_entries(exec, function, "truncated", cut, layout.rows()),
                                     detail::check_array(exec, function, "mask", out, layout.extent(), "positions")));
    detail::expand(exec, layout, detail::whole_sequences<F, M>{cut.data()}, out.data());
}
template <shape Shape, class Flags, class Mask>
void mask_truncated(const Shape& layout, const Flags& truncated, Mask&& mask) {
    mask_truncated(serial{}, layout, truncated, mask);
}

// max_penalty · (1 - different n-grams / n-grams) of the active token ids; 0 for a text shorter than n. TRL's defaults for
// the demonstration of long chains of thought: n = 3, max_penalty = -1.
struct repetition {
    std::int64_t n = 3;
    double max_penalty = -1.0;

    problem validate(const char* function) const {
        const problem p = detail::below(function, "repetition.n", static_cast<double>(n), 1);
        if (p || max_penalty <= 0) return p;
        return detail::complain(function, "repetition.max_penalty", "is %g, but must be at most %g", max_penalty, 0.0);
    }
};

namespace detail {

// The places of a row's active tokens, and a table of n-grams by the place where each began first.
template <class Token>
struct ngram_table {
    view<const Token> tokens;
    std::int64_t* places;
    std::int64_t* table;
    std::int64_t slots;  // a power of 2
    std::int64_t n;

    Token at(std::int64_t k) const { return tokens[places[k]]; }

    std::uint64_t hash(std::int64_t k) const {
        std::uint64_t h = 0xcbf29ce484222325u;
        for (std::int64_t j = 0; j < n; ++j) {
            h ^= static_cast<std::uint64_t>(at(k + j)) + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
            h *= 0x100000001b3u;
        }
        return h ^ (h >> 32);
    }
    bool same(std::int64_t a, std::int64_t b) const {
        for (std::int64_t j = 0; j < n; ++j) {
            if (at(a + j) != at(b + j)) return false;
        }
        return true;
    }
    // Whether the n-gram at k is new; then it is remembered.
    bool insert(std::int64_t k) const {
        std::int64_t slot = static_cast<std::int64_t>(hash(k) & static_cast<std::uint64_t>(slots - 1));
        for (; table[slot] >= 0; slot = (slot + 1) & (slots - 1)) {
            if (same(table[slot], k)) return false;
        }
        table[slot] = k;
        return true;
    }
};

// A power of 2 at least twice as large as the row is wide, so that the table stays half empty.
inline std::int64_t table_slots(std::int64_t width) {
    std::int64_t slots = 2;
    while (slots < 2 * width) slots *= 2;
    return slots;
}

template <class Shape>
std::int64_t widest(const Shape& layout) {
    std::int64_t width = 0;
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        const std::int64_t w = layout.end(row) - layout.begin(row);
        width = w > width ? w : width;
    }
    return width;
}

}  // namespace detail

// How many std::int64_t repetition_penalty needs.
template <shape Shape>
std::int64_t repetition_workspace(const Shape& layout) {
    const std::int64_t width = detail::widest(layout);
    return width + detail::table_slots(width);
}

// penalty[i] of sequence i. Time O(n · tokens) on average.
template <shape Shape, class Tokens, class Out>
void repetition_penalty(const Shape& layout, const Tokens& token_ids, const repetition& rule,
                        view<std::int64_t> workspace, Out&& penalty) {
    constexpr const char* function = "repetition_penalty";
    const view ids(token_ids);
    const view out(penalty);
    using Token = std::remove_cvref_t<decltype(ids[0])>;
    using T = std::remove_reference_t<decltype(out[0])>;
    detail::require(detail::first_of(
        layout.validate(function), rule.validate(function),
        detail::validate_view(function, "token_ids", ids, layout.extent(), "positions"),
        detail::validate_entries(function, "penalty", out, layout.rows()),
        detail::below(function, "workspace.size()", static_cast<double>(workspace.size()),
                      static_cast<double>(repetition_workspace(layout))),
        detail::null_pointer(function, "workspace", workspace.data(), workspace.size())));
    const std::int64_t width = detail::widest(layout);
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        detail::ngram_table<Token> grams{{ids.data(), ids.size()}, workspace.data(), workspace.data() + width,
                                         detail::table_slots(layout.end(row) - layout.begin(row)), rule.n};
        std::int64_t length = 0;
        for (std::int64_t i = layout.begin(row); i < layout.end(row); ++i) {
            if (layout.active(cursor<float>{i})) grams.places[length++] = i;
        }
        for (std::int64_t k = 0; k < grams.slots; ++k) grams.table[k] = -1;
        const std::int64_t total = length - rule.n + 1;
        std::int64_t repeated = 0;
        for (std::int64_t k = 0; k < total; ++k) repeated += grams.insert(k) ? 0 : 1;
        const double share = total > 0 ? static_cast<double>(repeated) / static_cast<double>(total) : 0.0;
        out[row] = repeated == 0 ? T(0) : static_cast<T>(rule.max_penalty * share);
    }
}

}  // namespace grpo::inline v0
