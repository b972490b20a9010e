// The critic's losses. v is the prediction, R its target (returns), v_old the prediction before the update.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

namespace detail {

// max(penalty(v - R), penalty(v̂ - R)) with v̂ = clip(v, v_old - range, v_old + range).
template <class S, class Penalty>
struct clipped_error {
    S plain;
    S kept;

    GRPO_HD clipped_error(const token<S>& t, double range, const Penalty& penalty)
        : plain(penalty(S(t.value - t.returns))),
          kept(penalty(S(math::clamp(t.value, constant_t<S>(t.value_old - constant<S>(range)),
                                     constant_t<S>(t.value_old + constant<S>(range))) -
                         t.returns))) {}

    GRPO_HD S worst() const { return math::max(plain, kept); }
    // The clipped error is the greater one: what the frameworks count as the clip fraction of the critic.
    GRPO_HD flags<S> clipped() const {
        flags<S> f = no_flags<S>();
        f.clamped = plain < kept;
        return f;
    }
};

struct squared {
    template <class S>
    GRPO_HD S operator()(const S& x) const { return math::square(x); }
};

// ½ x² where |x| <= delta, delta (|x| - ½ delta) beyond; value and slope meet at delta.
struct huber {
    double delta;
    template <class S>
    GRPO_HD S operator()(const S& x) const {
        const S size = math::abs(x);
        const S linear = constant<S>(delta) * (size - constant<S>(0.5 * delta));
        return math::select<S>(size <= constant<S>(delta), S(constant<S>(0.5) * math::square(x)), linear);
    }
};

}  // namespace detail

// The clipped value loss: L = factor · max((v - R)², (clip(v, v_old ± clip) - R)²).
// Defaults: clip 0.2 (the code of PPO, arXiv 1707.06347; verl, OpenRLHF and AReaL: 0.5), factor ½ (slime: 1).
// clip = math::unbounded switches the clip off. Gradient 2 factor (v - R) where the unclipped error is greater or tied,
// else 0. flagged: `clamped` counts tokens whose clipped error is the greater one.
struct value_loss {
    static constexpr unsigned needs = input::value::bit | input::value_old::bit | input::returns::bit;
    double clip = 0.2;
    double factor = 0.5;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return S(constant<S>(factor) * detail::clipped_error<S, detail::squared>(t, clip, {}).worst());
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::clipped_error<S, detail::squared>(t, clip, {}).clipped();
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "value_loss.clip", clip, 0.0),
                                detail::below(function, "value_loss.factor", factor, 0.0));
    }
};

// The same with Huber's penalty instead of the square: L = factor · max(h(v - R), h(clip(v) - R)),
// h(x) = ½ x² for |x| <= delta, else delta (|x| - ½ delta).
// Defaults: delta 10, as AReaL; factor 1, since h has the ½ inside; clip 0.2.
struct huber_value_loss {
    static constexpr unsigned needs = value_loss::needs;
    double delta = 10.0;
    double clip = 0.2;
    double factor = 1.0;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return S(constant<S>(factor) * detail::clipped_error<S, detail::huber>(t, clip, {delta}).worst());
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::clipped_error<S, detail::huber>(t, clip, {delta}).clipped();
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "huber_value_loss.delta", delta, 0.0),
                                detail::below(function, "huber_value_loss.clip", clip, 0.0),
                                detail::below(function, "huber_value_loss.factor", factor, 0.0));
    }
};

}  // namespace grpo::inline v0
