// What the tests of advantages share: shapes and options from a case, and bitwise comparison.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <grpo/advantage.hpp>

#include "vectors.hpp"

namespace advantage_cases {

using offsets = std::vector<std::int64_t>;
using flags = std::vector<std::uint8_t>;

template <class E>
using names = std::vector<std::pair<std::string, E>>;

template <class E>
E one_of(const std::string& name, const names<E>& all) {
    for (const auto& [known, value] : all) {
        if (known == name) return value;
    }
    vectors::stop("unknown name " + name);
}

inline grpo::eps_placement placement(const std::string& name) {
    using P = grpo::eps_placement;
    return one_of<P>(name, {{"outside", P::outside},
                            {"inside", P::inside},
                            {"floor", P::floor},
                            {"where_positive", P::where_positive},
                            {"none", P::none}});
}

inline grpo::singleton_rule singleton(const std::string& name) {
    using R = grpo::singleton_rule;
    return one_of<R>(name, {{"zero", R::zero}, {"raw_reward", R::raw_reward}, {"error", R::error}});
}

// Options from a JSON object: the case's parameters, or a part of them.
inline grpo::group_options group_options(const vectors::json& p) {
    using B = grpo::group_baseline;
    using S = grpo::group_scale;
    grpo::group_options o;
    o.ddof = p.at("ddof").get<int>();
    o.eps = p.at("eps").get<double>();
    o.placement = placement(p.at("eps_placement").get<std::string>());
    o.baseline =
        one_of<B>(p.at("baseline").get<std::string>(), {{"mean", B::mean}, {"leave_one_out", B::leave_one_out}});
    o.scale = one_of<S>(p.at("scale").get<std::string>(), {{"group", S::group},
                                                           {"batch", S::batch},
                                                           {"none", S::none},
                                                           {"leave_one_out", S::leave_one_out},
                                                           {"about_baseline", S::about_baseline}});
    o.singleton = singleton(p.at("singleton").get<std::string>());
    return o;
}

inline grpo::whiten_options whiten_options(const vectors::json& p) {
    grpo::whiten_options o;
    o.ddof = p.at("ddof").get<int>();
    o.eps = p.at("eps").get<double>();
    o.placement = placement(p.value("eps_placement", std::string("outside")));
    o.center = p.value("center", 1) != 0;
    return o;
}

// f(shape) with the shape of `rows`, masked by the case's input `mask` if it has one.
template <class Shape, class F>
void with_mask(const vectors::test_case& c, const Shape& rows, const std::string& mask, F&& f) {
    if (c.has(mask)) {
        const flags m = c.input<std::uint8_t>(mask);
        f(rows.where(m));
    } else {
        f(rows);
    }
}

template <class F>
void with_tokens(const vectors::test_case& c, F&& f) {
    const offsets cu = c.input<std::int64_t>("cu_seqlens");
    with_mask(c, grpo::ragged(cu), "mask", f);
}

template <class F>
void with_groups(const vectors::test_case& c, F&& f) {
    const offsets cu = c.input<std::int64_t>("group_offsets");
    with_mask(c, grpo::ragged(cu), "valid", f);
}

// "" if got is what the case expects under `name`.
template <class T>
std::string wrong(const vectors::test_case& c, const std::string& name, const std::vector<T>& got) {
    const std::string d = vectors::difference(got, c.expected<double>(name), c.tolerance<T>());
    return d.empty() ? d : c.id() + ": " + name + d;
}

// Runs f with T = double and T = float on every case of the family with that method; how many there were.
template <class F>
int for_each(const std::string& family, const std::string& method, F&& f) {
    int n = 0;
    for (const vectors::test_case& c : vectors::load(family)) {
        if (c.method() != method) continue;
        ++n;
        f(c, double{});
        f(c, float{});
    }
    return n;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
bool plus_zero(T x) {
    const T zero = 0;
    return std::memcmp(&x, &zero, sizeof x) == 0;
}

// What masked memory may hold (R1.12).
template <class T>
std::vector<T> poisons() {
    return {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
            -std::numeric_limits<T>::infinity(), T(1e30), T(999)};
}

// Small reproducible numbers, no library generator needed.
struct numbers {
    std::uint64_t state;

    explicit numbers(std::uint64_t seed) : state(seed * 2862933555777941757u + 3037000493u) {}
    std::uint64_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return state >> 33;
    }
    double uniform(double low, double high) {
        return low + (high - low) * static_cast<double>(next() % 1000003) / 1000003.0;
    }
    template <class T>
    std::vector<T> many(std::size_t n, double low, double high) {
        std::vector<T> x(n);
        for (T& v : x) v = static_cast<T>(uniform(low, high));
        return x;
    }
};

}  // namespace advantage_cases
