// Terms and their composition: a + b, c * a, factor * a.
//
// A term is a small struct with
//   static constexpr unsigned needs = input::logp::bit | ...;    the inputs it reads
//   template <class S> S operator()(const token<S>&) const;      the loss of one token (always minimised)
// and, if it couples the tokens of a sequence,
//   static constexpr int statistics = 1;
//   template <class S> S statistic(const token<S>&) const;       summed over the active tokens, then token::sums[0]
// whose gradient the engine propagates exactly (DESIGN: dL/dx_t = w ∂f/∂x_t + (Σ_u w ∂f_u/∂S) g'(x_t)), unless
//   static constexpr bool statistic_is_constant = true;          a stop-gradient around the statistic
// and, if its hyper-parameters have a range,
//   problem validate(const char* function) const;
// and, if it wants to be counted in the diagnostics,
//   template <class S> flags<S> flagged(const token<S>&) const;  S a plain number
#pragma once

#include <concepts>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

template <class T>
concept term = requires { { T::needs } -> std::convertible_to<unsigned>; };

// What diagnostics count about one token.
template <class S>
struct flags {
    mask_t<S> low;      // A < 0 and the ratio is below its lower bound: gradient stopped
    mask_t<S> high;     // A > 0 and the ratio is above its upper bound: gradient stopped
    mask_t<S> clamped;  // the log-ratio (or the KL's) was outside its safety bound
};

namespace detail {

GRPO_HD bool both(bool a, bool b) { return a && b; }
GRPO_HD bool either(bool a, bool b) { return a || b; }
GRPO_HD bool negation(bool a) { return !a; }
// Masks of packs; or what a foreign scalar's comparison gives instead of a bool.
template <class M>
    requires(!std::same_as<M, bool>)
GRPO_HD auto both(const M& a, const M& b) {
    if constexpr (requires { { a & b } -> std::same_as<M>; }) return a & b;
    else return static_cast<bool>(a) && static_cast<bool>(b);
}
template <class M>
    requires(!std::same_as<M, bool>)
GRPO_HD auto either(const M& a, const M& b) {
    if constexpr (requires { { a | b } -> std::same_as<M>; }) return a | b;
    else return static_cast<bool>(a) || static_cast<bool>(b);
}
template <class M>
    requires(!std::same_as<M, bool>)
GRPO_HD auto negation(const M& a) { return !a; }

template <class Term>
consteval int statistics_of() {
    if constexpr (requires { Term::statistics; }) return Term::statistics;
    return 0;
}
template <class Term>
consteval bool couples() {
    if constexpr (requires { Term::statistic_is_constant; }) return !Term::statistic_is_constant;
    return statistics_of<Term>() > 0;
}

// The first hyper-parameter that is out of range.
template <class Term>
problem validate_term(const Term& t, const char* function) {
    if constexpr (requires { t.validate(function); }) {
        return t.validate(function);
    } else {
        return {};
    }
}

template <class Term, class S>
GRPO_HD void write_statistics(const Term& t, const token<S>& x, S* out) {
    if constexpr (requires { t.write_statistics(x, out); }) {
        t.write_statistics(x, out);
    } else if constexpr (statistics_of<Term>() == 1) {
        out[0] = t.statistic(x);
    }
}

template <class S>
GRPO_HD flags<S> no_flags() {
    const S zero(constant<S>(0));
    const mask_t<S> none = zero < zero;
    return {none, none, none};
}
template <class S>
GRPO_HD flags<S> only_clamped(const mask_t<S>& clamped) {
    flags<S> f = no_flags<S>();
    f.clamped = clamped;
    return f;
}
template <class Term, class S>
GRPO_HD flags<S> flags_of(const Term& t, const token<S>& x) {
    if constexpr (requires { t.flagged(x); }) {
        return t.flagged(x);
    } else {
        return no_flags<S>();
    }
}

// The record with the statistics of the first `n` removed, for the right operand of a composition.
template <class S>
GRPO_HD token<S> skip(token<S> x, int n) {
    x.sums += n;
    return x;
}

// Calls f with the term less its parts whose scale is 0: those parts' inputs are then not read at all (R1.22).
template <class Term, class F>
auto reduced(const Term& t, F&& f) {
    if constexpr (requires { t.reduced(f); }) {
        return t.reduced(f);
    } else {
        return f(t);
    }
}

}  // namespace detail

// The loss that is 0 and reads nothing.
struct no_term {
    static constexpr unsigned needs = 0;
    template <template <class> class Record, class S>
    GRPO_HD S operator()(const Record<S>&) const { return S(constant<S>(0)); }
};

// How two terms of one record (token, or pair of preference.hpp) are joined. Op is a functor on two scalars.
template <class Op, term A, term B>
struct joined_term {
    static constexpr unsigned needs = A::needs | B::needs;
    static constexpr int statistics = detail::statistics_of<A>() + detail::statistics_of<B>();
    static constexpr bool statistic_is_constant = !detail::couples<A>() && !detail::couples<B>();
    A a;
    B b;

    template <template <class> class Record, class S>
    GRPO_HD S operator()(const Record<S>& t) const {
        if constexpr (detail::statistics_of<B>() == 0 || detail::statistics_of<A>() == 0) {
            return Op{}(S(a(t)), S(b(t)));
        } else {
            return Op{}(S(a(t)), S(b(detail::skip(t, detail::statistics_of<A>()))));
        }
    }
    template <class S>
    GRPO_HD void write_statistics(const token<S>& t, S* out) const {
        detail::write_statistics(a, t, out);
        detail::write_statistics(b, t, out + detail::statistics_of<A>());
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const flags<S> x = detail::flags_of(a, t);
        const flags<S> y = detail::flags_of(b, detail::skip(t, detail::statistics_of<A>()));
        return {detail::either(x.low, y.low), detail::either(x.high, y.high), detail::either(x.clamped, y.clamped)};
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::validate_term(a, function), detail::validate_term(b, function));
    }
    template <class F>
    auto reduced(F&& f) const {
        return detail::reduced(a, [&](const auto& x) {
            return detail::reduced(b, [&](const auto& y) { return f(Op::join(x, y)); });
        });
    }
};

namespace detail {

struct plus {
    template <class S>
    GRPO_HD S operator()(const S& a, const S& b) const { return S(a + b); }
    template <class A, class B>
    static auto join(const A& a, const B& b) {
        if constexpr (std::same_as<A, no_term>) {
            return b;
        } else if constexpr (std::same_as<B, no_term>) {
            return a;
        } else {
            return joined_term<plus, A, B>{a, b};
        }
    }
};

struct times {
    template <class S>
    GRPO_HD S operator()(const S& a, const S& b) const { return S(a * b); }
    template <class A, class B>
    static auto join(const A& a, const B& b) {
        if constexpr (std::same_as<A, no_term> || std::same_as<B, no_term>) {
            return no_term{};
        } else {
            return joined_term<times, A, B>{a, b};
        }
    }
};

}  // namespace detail

// scale · term. A scale of 0 removes the term: its inputs are neither needed nor read.
template <term A>
struct scaled_term {
    static constexpr unsigned needs = A::needs;
    static constexpr int statistics = detail::statistics_of<A>();
    static constexpr bool statistic_is_constant = !detail::couples<A>();
    double scale;
    A a;

    template <template <class> class Record, class S>
    GRPO_HD S operator()(const Record<S>& t) const { return S(constant<S>(scale) * a(t)); }
    template <class S>
    GRPO_HD void write_statistics(const token<S>& t, S* out) const { detail::write_statistics(a, t, out); }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const { return detail::flags_of(a, t); }
    problem validate(const char* function) const { return detail::validate_term(a, function); }
    template <class F>
    auto reduced(F&& f) const {
        if (scale == 0.0) return f(no_term{});
        return detail::reduced(a, [&]<class X>(const X& x) {
            if constexpr (std::same_as<X, no_term>) {
                return f(x);
            } else {
                return f(scaled_term<X>{scale, x});
            }
        });
    }
};

template <term A, term B>
auto operator+(const A& a, const B& b) { return detail::plus::join(a, b); }
// The product of two terms: a weight or a 0/1 mask (a term without derivatives) times a loss, or GSPO's ratio times a KL.
template <term A, term B>
auto operator*(const A& a, const B& b) { return detail::times::join(a, b); }
template <term A>
auto operator*(double scale, const A& a) { return scaled_term<A>{scale, a}; }
template <term A>
auto operator-(const A& a) { return scaled_term<A>{-1.0, a}; }

}  // namespace grpo::inline v0
