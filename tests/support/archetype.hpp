// The least a scalar may offer. A term that compiles for these compiles for every type that keeps scalar.hpp's promises.
//
//   archetype::scalar   operators give proxies, as expression templates do; constants are a type of their own, made from
//                       numbers explicitly; comparisons give a mask that is no bool, and need masks selected
//   lazy::scalar        constants are double; comparisons give an object that converts to bool, as reverse modes have it
#pragma once

#include <cmath>
#include <concepts>

#include <grpo/scalar.hpp>

namespace archetype {

struct mask {
    bool on;
    operator bool() const = delete;
    friend mask operator&(mask a, mask b) { return {static_cast<bool>(a.on & b.on)}; }
    friend mask operator|(mask a, mask b) { return {static_cast<bool>(a.on | b.on)}; }
    friend mask operator!(mask a) { return {!a.on}; }
};

// A constant.
struct number {
    double x = 0;
    number() = default;
    explicit number(double v) : x(v) {}
    template <class Other>
        requires(!std::same_as<Other, double>)
    explicit number(Other) = delete;

    friend number operator-(number a) { return number(-a.x); }
    friend number operator+(number a, number b) { return number(a.x + b.x); }
    friend number operator-(number a, number b) { return number(a.x - b.x); }
    friend number operator*(number a, number b) { return number(a.x * b.x); }
    friend number operator/(number a, number b) { return number(a.x / b.x); }
    friend mask operator<(number a, number b) { return {a.x < b.x}; }
    friend mask operator<=(number a, number b) { return {a.x <= b.x}; }
    friend number abs(number a) { return number(std::abs(a.x)); }
    friend number exp(number a) { return number(std::exp(a.x)); }
    friend number expm1(number a) { return number(std::expm1(a.x)); }
    friend number log(number a) { return number(std::log(a.x)); }
    friend number log1p(number a) { return number(std::log1p(a.x)); }
    friend number sqrt(number a) { return number(std::sqrt(a.x)); }
};

// What an operator gives: usable in further arithmetic and as a scalar, and in nothing else.
struct proxy {
    double v, d;
};

struct scalar {
    double v = 0, d = 0;
    scalar() = default;
    explicit scalar(number c) : v(c.x) {}
    scalar(proxy p) : v(p.v), d(p.d) {}
    scalar(double value, double slope) : v(value), d(slope) {}
    operator bool() const = delete;

    friend mask operator<(const scalar& a, const scalar& b) { return {a.v < b.v}; }
    friend mask operator<(const scalar& a, number b) { return {a.v < b.x}; }
    friend mask operator<(number a, const scalar& b) { return {a.x < b.v}; }
    friend mask operator<=(const scalar& a, const scalar& b) { return {a.v <= b.v}; }
    friend mask operator<=(const scalar& a, number b) { return {a.v <= b.x}; }
    friend mask operator<=(number a, const scalar& b) { return {a.x <= b.v}; }
};

inline proxy open(const proxy& p) { return p; }
inline proxy open(const scalar& s) { return {s.v, s.d}; }
inline proxy open(number c) { return {c.x, 0}; }

template <class T>
concept active = std::same_as<T, scalar> || std::same_as<T, proxy>;
template <class A, class B>
concept operands = (active<A> && (active<B> || std::same_as<B, number>)) || (std::same_as<A, number> && active<B>);

template <active A>
proxy operator-(const A& a) {
    return {-open(a).v, -open(a).d};
}
template <class A, class B>
    requires operands<A, B>
proxy operator+(const A& a, const B& b) {
    return {open(a).v + open(b).v, open(a).d + open(b).d};
}
template <class A, class B>
    requires operands<A, B>
proxy operator-(const A& a, const B& b) {
    return {open(a).v - open(b).v, open(a).d - open(b).d};
}
template <class A, class B>
    requires operands<A, B>
proxy operator*(const A& a, const B& b) {
    return {open(a).v * open(b).v, open(a).d * open(b).v + open(a).v * open(b).d};
}
template <class A, class B>
    requires operands<A, B>
proxy operator/(const A& a, const B& b) {
    const double r = open(a).v / open(b).v;
    return {r, (open(a).d - r * open(b).d) / open(b).v};
}

}  // namespace archetype

namespace lazy {

struct truth {
    bool on;
    operator bool() const { return on; }
};

struct scalar {
    double v = 0, d = 0;
    scalar() = default;
    scalar(double value) : v(value) {}
    scalar(double value, double slope) : v(value), d(slope) {}

    friend scalar operator-(const scalar& a) { return {-a.v, -a.d}; }
    friend scalar operator+(const scalar& a, const scalar& b) { return {a.v + b.v, a.d + b.d}; }
    friend scalar operator-(const scalar& a, const scalar& b) { return {a.v - b.v, a.d - b.d}; }
    friend scalar operator*(const scalar& a, const scalar& b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
    friend scalar operator/(const scalar& a, const scalar& b) {
        return {a.v / b.v, (a.d - a.v / b.v * b.d) / b.v};
    }
    friend truth operator<(const scalar& a, const scalar& b) { return {a.v < b.v}; }
    friend truth operator<=(const scalar& a, const scalar& b) { return {a.v <= b.v}; }
};

}  // namespace lazy

template <>
struct grpo::scalar_traits<archetype::number> {
    using constant = archetype::number;
    using mask = archetype::mask;
    using element = double;
    static constexpr int lanes = 1;
    static constant value(constant x) { return x; }
    static constant chain(constant v, constant, constant) { return v; }
    static constant select(mask m, constant a, constant b) { return m.on ? a : b; }
    static grpo::math::exp_parts<constant> exp_split(constant x) {
        const grpo::math::exp_parts<double> e = grpo::math::exp_split(x.x);
        return {constant(e.remainder), constant(e.expm1)};
    }
};

template <>
struct grpo::scalar_traits<archetype::scalar> {
    using S = archetype::scalar;
    using constant = archetype::number;
    using mask = archetype::mask;
    using element = double;
    static constexpr int lanes = 1;
    static constant value(const S& x) { return constant(x.v); }
    static S chain(constant v, constant slope, const S& x) { return {v.x, slope.x * x.d}; }
    static S select(mask m, const S& a, const S& b) { return m.on ? a : b; }
};

template <>
struct grpo::scalar_traits<lazy::scalar> {
    using S = lazy::scalar;
    using constant = double;
    using mask = bool;
    using element = double;
    static constexpr int lanes = 1;
    static double value(const S& x) { return x.v; }
    static S chain(double v, double slope, const S& x) { return {v, slope * x.d}; }
};
