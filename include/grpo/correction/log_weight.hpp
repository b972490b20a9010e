// log w = logp_old - logp_rollout of one token: what every rollout correction starts from.
#pragma once

#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>
#include <grpo/term/compose.hpp>

namespace grpo::inline v0 {

// What a weight, a statistic or a band is about.
enum class correction_level {
    token,      // w_t = e^(log w_t)
    sequence,   // e^(Σ_t log w_t), the same for every token of the sequence
    geometric,  // e^(mean_t log w_t), likewise
};

namespace detail {

template <class V>
struct log_weight {
    V old{};
    V rollout{};           // logp_old where it is missing
    V log_w{};             // 0 where missing
    mask_t<V> missing{};   // logp_rollout is NaN: not reported by the sampler (R1.17)
    mask_t<V> nonfinite{};  // logp_old is not finite, or logp_rollout is infinite (R1.16)

    // log w cut to ±bound; ±inf becomes the bound, NaN stays.
    GRPO_HD V bounded(double bound) const { return cut(log_w, bound); }

    GRPO_HD static V cut(const V& x, double bound) {
        const V b(constant<V>(bound));
        return math::select<V>(is_nan(x), x, math::clamp(x, constant_t<V>(-b), constant_t<V>(b)));
    }
};

inline constexpr unsigned correction_needs = input::logp_old::bit | input::logp_rollout::bit;

template <class Batch, class V>
GRPO_HD log_weight<V> read_log_weight(const Batch& data, cursor<V> at, std::int64_t row) {
    token<V> t;
    V probe(constant<V>(0));
    data.template read_row<correction_needs>(row, t, probe);
    data.template read_token<correction_needs>(at, t, probe);
    log_weight<V> x;
    x.missing = is_nan(V(t.logp_rollout));
    x.old = V(t.logp_old);
    x.rollout = math::select<V>(x.missing, x.old, V(t.logp_rollout));
    x.log_w = math::select<V>(x.missing, V(constant<V>(0)), V(x.old - x.rollout));
    x.nonfinite = either(is_nonfinite(x.old), is_nonfinite(x.rollout));
    return x;
}

// What is rare of the lanes in use: tokens without logp_rollout, counted in one sum, non-finite ones in another, and where the
// first of these is.
template <int Missing, int Bad, class State, class V>
GRPO_HD void note_unusual(State& state, cursor<V> at, const mask_t<V>& use, const log_weight<V>& x) {
    if (!any(both(use, either(x.missing, x.nonfinite)))) [[likely]] return;
    const mask_t<V> broken = both(use, x.nonfinite);
    add_count<V>(state.sum[Missing], both(use, x.missing));
    add_count<V>(state.sum[Bad], broken);
    if (!any(broken)) return;
    const std::int64_t i = at.i + first_lane<V>(broken);
    if (i < state.first) state.first = i;
}

template <class Batch>
consteval void check_correction_inputs() {
    static_assert((Batch::has & correction_needs) == correction_needs,
                  "grpo: a rollout correction needs logp_old and logp_rollout: add grpo::logp_old(...) and "
                  "grpo::logp_rollout(...) to the batch");
}

inline problem validate_band(const char* function, const char* which, double low, double high) {
    if (low <= high) return {};
    return complain(function, which, "has the lower bound %g above the upper bound %g", low, high);
}

template <class T>
problem validate_view(const char* function, const char* argument, view<T> out, std::int64_t wanted,
                      const char* of_what) {
    return first_of(wrong_size(function, argument, out.size(), wanted, of_what),
                    null_pointer(function, argument, out.data(), out.size()));
}

}  // namespace detail
}  // namespace grpo::inline v0
