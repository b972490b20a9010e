// The softmax of a row of logits against one written out in long double: what every executor has to give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/head.hpp>
#include <grpo/storage.hpp>

#include <support/random_batch.hpp>

namespace softmax_cases {

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr float sentinel = 77;

// One row: z = softcap(scale (logit + bias)) / temperature, its softmax, and g dlogp + h dH by the logits.
struct exact_row {
    long double lse = 0, logp = 0, entropy = 0, sum_squares = 0;
    std::vector<long double> gradient;

    template <class T>
    exact_row(const T* row, std::int64_t columns, const grpo::head_options& o, std::int64_t target, double g, double h) {
        const auto temperature = static_cast<long double>(o.temperature);
        const auto cap = static_cast<long double>(o.softcap);
        const auto n = static_cast<std::size_t>(columns);
        std::vector<long double> z(n), slope(n);
        for (std::size_t v = 0; v < n; ++v) {
            long double x = static_cast<long double>(static_cast<double>(row[v]));
            if (!o.bias.empty()) x += static_cast<long double>(o.bias[static_cast<std::int64_t>(v)]);
            x *= static_cast<long double>(o.scale);
            slope[v] = static_cast<long double>(o.scale) / temperature;
            if (o.softcap > 0 && std::isfinite(x)) {
                const long double t = std::tanh(x / cap);
                slope[v] *= 1 - t * t;
                x = cap * t;
            }
            z[v] = x / temperature;
        }
        const long double top = *std::max_element(z.begin(), z.end());
        gradient.assign(n, 0);
        if (std::isinf(top) && top < 0) {
            logp = lse = top;
            return;
        }
        long double sum = 0, squares = 0, weighted = 0;
        for (const long double x : z) {
            const long double p = std::exp(x - top);
            sum += p;
            squares += p * p;
            if (p > 0) weighted += p * (x - top);
        }
        lse = top + std::log(sum);
        entropy = std::log(sum) - weighted / sum;
        sum_squares = squares / (sum * sum);
        const auto chosen = static_cast<std::size_t>(target);
        logp = z[chosen] - top - std::log(sum);
        for (std::size_t v = 0; v < n; ++v) {
            const long double log_p = z[v] - top - std::log(sum);
            const long double p = std::exp(log_p);
            long double d = static_cast<long double>(g) * ((v == chosen ? 1 : 0) - p);
            if (p > 0) d -= static_cast<long double>(h) * p * (log_p + entropy);
            gradient[v] = d * slope[v];
        }
    }
};

template <class T>
inline constexpr double place = std::is_same_v<T, double> ? 0x1p-52 : 0x1p-23;  // of what is computed in
template <class T>
inline constexpr double rounding = std::is_same_v<T, grpo::bfloat16> ? 0x1p-8
                                   : std::is_same_v<T, grpo::float16> ? 0x1p-10 : place<T>;  // of what is stored
template <class T>
inline constexpr double least = std::is_same_v<T, grpo::float16> ? 0x1p-24 : 0.0;

// "" or the first number that is off.
inline std::string off(const char* what, std::int64_t at, double got, double expected, double tolerance) {
    if (std::isnan(expected) ? std::isnan(got) : got == expected || std::abs(got - expected) <= tolerance) return "";
    char text[160];
    std::snprintf(text, sizeof text, "%s[%lld] is %.10g, expected %.10g within %.3g", what, static_cast<long long>(at), got,
                  expected, tolerance);
    return text;
}
template <class T>
bool same_bits(const T& a, const T& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

// Rows of logits in memory of their own.
template <class T>
struct world {
    std::int64_t rows = 0, vocabulary = 0, stride = 0, offset = 0;  // offset: of row 0 in the memory, in entries
    std::vector<T> memory;
    std::vector<std::int32_t> target;
    std::vector<double> g, h;
    std::vector<std::uint8_t> mask;  // empty: all rows count
    grpo::head_options options = {};

    world(std::int64_t n, std::int64_t v, std::int64_t s = 0, std::int64_t o = 0, std::uint64_t seed = 1, double width = 8)
        : rows(n), vocabulary(v), stride(s == 0 ? v : s), offset(o) {
        random_batch::source random(seed);
        memory.assign(static_cast<std::size_t>(offset + extent()), T(nan));
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t k = 0; k < vocabulary; ++k) at(i, k) = T(random.uniform(-width, width) + random.uniform(0, 1));
            target.push_back(static_cast<std::int32_t>(random.bits() % static_cast<std::uint32_t>(vocabulary)));
            g.push_back(random.uniform(-2, 2));
            h.push_back(random.uniform(-1, 1));
        }
    }
    std::int64_t extent() const { return grpo::padded(rows, vocabulary, stride).extent(); }
    std::int64_t columns() const { return options.columns(vocabulary); }
    T& at(std::int64_t i, std::int64_t k) { return memory[static_cast<std::size_t>(offset + i * stride + k)]; }
    const T* row(std::int64_t i) const { return memory.data() + offset + i * stride; }
    bool active(std::int64_t i) const { return mask.empty() || mask[static_cast<std::size_t>(i)] != 0; }
    grpo::logits_view<T> view() const {
        const auto all = grpo::logits(grpo::view<const T>(memory.data() + offset, extent()), rows, vocabulary, stride);
        return mask.empty() ? all : all.where(mask);
    }
};

template <class T>
struct outputs {
    std::vector<double> logp, entropy, sum_squares, lse;
    std::vector<T> gradient;
};

// Everything that token_logp() gives, and the gradient; `saved`: with what the forward pass knows.
template <class T, class Exec>
outputs<T> evaluate(const Exec& exec, const world<T>& w, bool saved, bool with_entropy) {
    const auto n = static_cast<std::size_t>(w.rows);
    outputs<T> o{std::vector<double>(n, sentinel), std::vector<double>(n, sentinel), std::vector<double>(n, sentinel),
                 std::vector<double>(n, sentinel), std::vector<T>(w.memory.size(), T(sentinel))};
    grpo::token_logp(exec, w.view(), w.target, w.options,
                     grpo::softmax_outputs<double>{grpo::view(o.logp), grpo::view(o.entropy), grpo::view(o.sum_squares),
                                                   grpo::view(o.lse)});
    grpo::softmax_saved known;
    if (saved) known.lse = grpo::view(o.lse);
    if (saved && with_entropy) known.entropy = grpo::view(o.entropy);
    const grpo::view<const double> g(w.g), h(w.h);
    grpo::d_logits(exec, w.view(), w.target, w.options, g, with_entropy ? h : grpo::view<const double>{},
                   grpo::view<T>(o.gradient.data() + w.offset, w.extent()), known);
    return o;
}

// "" or what is wrong with a row that counts.
template <class T>
std::string wrong_row(const world<T>& w, const outputs<T>& o, std::int64_t i, bool with_entropy) {
    const auto k = static_cast<std::size_t>(i);
    const double h = with_entropy ? w.h[k] : 0.0;
    const exact_row e(w.row(i), w.columns(), w.options, w.target[k], w.g[k], h);
    const double logp = static_cast<double>(e.logp), entropy = static_cast<double>(e.entropy);
    const double lse = static_cast<double>(e.lse);
    const double of_lse = std::isfinite(lse) ? 0x1p-51 * std::abs(lse) : 0.0;  // what a double log Σ e^z cannot hold
    const double unit = place<T>;
    const double of_sum = (std::is_same_v<T, double> ? 64 : 8) * unit;
    std::string s = off("logp", i, o.logp[k], logp, 2 * unit * std::max(1.0, std::abs(logp)) + of_lse);
    if (s.empty() && o.logp[k] > 0) s = "logp is above 0";
    if (s.empty()) s = off("entropy", i, o.entropy[k], entropy, 6 * unit * std::max(1.0, entropy) + of_lse);
    if (s.empty()) s = off("sum_squares", i, o.sum_squares[k], static_cast<double>(e.sum_squares), of_sum);
    if (s.empty()) s = off("lse", i, o.lse[k], lse, 2 * unit * std::max(1.0, std::abs(lse)));
    const double size = (std::abs(w.g[k]) + std::abs(h) * std::max(1.0, entropy)) * w.options.scale / w.options.temperature;
    double sum = 0, rounded = 0;
    for (std::int64_t v = 0; v < w.columns() && s.empty(); ++v) {
        const double expected = static_cast<double>(e.gradient[static_cast<std::size_t>(v)]);
        const double got = static_cast<double>(o.gradient[static_cast<std::size_t>(w.offset + i * w.stride + v)]);
        s = off("gradient", v, got, expected, (16 * unit + 2 * of_lse) * size + rounding<T> * std::abs(expected) + least<T>);
        sum += got;
        rounded += rounding<T> * std::abs(expected) + least<T>;
    }
    // Whatever is added to all logits changes nothing.
    if (s.empty() && w.options.softcap == 0) s = off("sum of the gradient", i, sum, 0.0, (of_sum + of_lse) * size + rounded);
    return s;
}

// "" or what is wrong with what does not count: +0.0 for rows and columns, nothing in between.
template <class T>
std::string wrong_rest(const world<T>& w, const outputs<T>& o) {
    const auto gradient = [&](std::int64_t i, std::int64_t v) {
        return o.gradient[static_cast<std::size_t>(w.offset + i * w.stride + v)];
    };
    for (std::int64_t i = 0; i < w.rows; ++i) {
        const auto k = static_cast<std::size_t>(i);
        for (const double x : {o.logp[k], o.entropy[k], o.sum_squares[k], o.lse[k]}) {
            if (!w.active(i) && !same_bits(x, 0.0)) return "an output of a masked row is not +0.0";
        }
        for (std::int64_t v = w.active(i) ? w.columns() : 0; v < w.vocabulary; ++v) {
            if (!same_bits(gradient(i, v), T())) return "the gradient of padding or of a masked row is not +0.0";
        }
        for (std::int64_t v = w.vocabulary; v < w.stride && i + 1 < w.rows; ++v) {
            if (!same_bits(gradient(i, v), T(sentinel))) return "what lies between the rows was written";
        }
    }
    return "";
}

// "" or what is wrong, with and without what the forward pass saved, and with and without the entropy.
template <class T, class Exec>
std::string wrong(const Exec& exec, const world<T>& w) {
    for (const bool saved : {false, true}) {
        for (const bool with_entropy : {false, true}) {
            const outputs<T> o = evaluate(exec, w, saved, with_entropy);
            for (std::int64_t i = 0; i < w.rows; ++i) {
                if (!w.active(i)) continue;
                const std::string s = wrong_row(w, o, i, with_entropy);
                if (!s.empty()) return s + (saved ? ", saved" : "") + (with_entropy ? ", with entropy" : "");
            }
            const std::string s = wrong_rest(w, o);
            if (!s.empty()) return s;
        }
    }
    return "";
}

template <class T, class Exec>
void check(const Exec& exec, const world<T>& w) {
    INFO("rows ", w.rows, " vocabulary ", w.vocabulary, " stride ", w.stride, " offset ", w.offset, " temperature ",
         w.options.temperature, " storage of ", sizeof(T), " bytes");
    CHECK(wrong(exec, w) == "");
}

// Widths around every multiple of a pack, none to five rows, strides, bases that no pack is aligned to.
template <class T, class Exec>
void check_shapes(const Exec& exec) {
    const double temperatures[] = {1.0, 0.3, 1.7};
    std::int64_t k = 0;
    for (const std::int64_t vocabulary : {1, 2, 3, 15, 16, 17, 31, 127, 128, 129, 257, 1000, 4099}) {
        for (const std::int64_t rows : {0, 1, 5}) {
            world<T> w(rows, vocabulary, vocabulary + (k % 2 == 0 ? 0 : k % 7), k % 16, static_cast<std::uint64_t>(k + 1));
            w.options.temperature = temperatures[k % 3];
            check(exec, w);
            ++k;
        }
    }
    for (std::int64_t offset = 0; offset < 16; ++offset) {
        world<T> w(2, 300, 301, offset, static_cast<std::uint64_t>(offset + 100));
        w.options.temperature = temperatures[offset % 3];
        check(exec, w);
    }
}
template <class T, class Exec>
void check_large(const Exec& exec) {
    check(exec, world<T>(1, 151936, 0, 5, 7, 20));
}

// Rows that the walk finds hard; T: float or double.
template <class T, class Exec>
void check_orders(const Exec& exec) {
    for (const std::int64_t vocabulary : {3, 40, 129, 1000}) {
        for (const double temperature : {1.0, 0.3, 1.7}) {
            world<T> w(7, vocabulary, vocabulary + 1, vocabulary % 5, 31);
            w.options.temperature = temperature;
            for (std::int64_t v = 0; v < vocabulary; ++v) {
                w.at(0, v) = T(3 * v);
                w.at(1, v) = T(-3 * v);
                w.at(2, v) = T(1.25);
                w.at(3, v) = T(-1e4) + w.at(3, v);
                w.at(4, v) = T(10) * w.at(4, v);
                if (v < vocabulary / 2) w.at(5, v) = T(-infinity);
                if (v % 3 != 0) w.at(6, v) = T(-infinity);
            }
            w.target[5] = static_cast<std::int32_t>(vocabulary - 1);
            w.target[6] = 0;
            check(exec, w);
        }
    }
}
template <class T, class Exec>
void check_huge(const Exec& exec) {
    for (const double huge : {1e4, 1e5, 1.8e5}) {
        for (const std::int64_t place : {0, 1, 20, 98, 99}) {
            world<T> w(2, 100, 0, 3, 41);
            for (std::int64_t i = 0; i < 2; ++i) w.at(i, place) = T(huge);
            w.target[0] = static_cast<std::int32_t>(place);
            w.target[1] = 50;
            INFO("huge ", huge, " at ", place);
            check(exec, w);
        }
    }
    // Where a z of float is no longer sure: the right log-probability, or NaN.
    for (const double huge : {2e5, 1e6, 1e12, 1e30, 3e38}) {
        world<T> w(1, 100);
        w.at(0, 70) = T(huge);
        w.target[0] = 70;
        const double logp = evaluate(exec, w, false, false).logp[0];
        CHECK((std::isnan(logp) || logp == 0.0));
    }
}
// Filters that write a large negative number for -inf, at the start of a row and elsewhere.
template <class T, class Exec>
void check_filtered(const Exec& exec) {
    for (const double filter : {-1e4, -1e9, -1e10, -1e20, -1e30, -3e38, -infinity}) {
        world<T> w(3, 700, 701, 1, 43);
        for (std::int64_t v = 0; v < 700; ++v) {
            if (v < 600) w.at(0, v) = T(filter);
            if (v != 350) w.at(1, v) = T(filter);
            if (v % 3 == 0) w.at(2, v) = T(filter);
        }
        w.target = {650, 350, 1};
        INFO("filter ", filter);
        check(exec, w);
    }
}

// A row of nothing but -inf has no policy; one with +inf or NaN gives NaN wherever that stands.
template <class T, class Exec>
void check_without_policy(const Exec& exec) {
    world<T> none(2, 75);
    for (std::int64_t v = 0; v < 75; ++v) none.at(0, v) = T(-infinity);
    for (const bool saved : {false, true}) {
        const outputs<T> o = evaluate(exec, none, saved, true);
        CHECK(o.logp[0] == -infinity);
        CHECK(o.entropy[0] == 0.0);
        for (std::size_t v = 0; v < 75; ++v) {
            if (static_cast<double>(o.gradient[v]) != 0.0) FAIL_CHECK("gradient at ", v);
        }
        CHECK(wrong_row(none, o, 1, true) == "");
    }
    for (const double poison : {nan, infinity}) {
        for (const std::int64_t place : {0, 1, 16, 40, 74}) {
            INFO(poison, " at ", place);
            world<T> w(2, 75, 76, 1, 3);
            w.at(0, place) = T(poison);
            const outputs<T> o = evaluate(exec, w, false, true);
            CHECK(std::isnan(o.logp[0]));
            CHECK(wrong_row(w, o, 1, true) == "");
        }
    }
}

// Scale, softcap and bias in their order; T: float or double.
template <class T, class Exec>
void check_options(const Exec& exec) {
    for (const std::int64_t vocabulary : {5, 64, 213}) {
        world<T> w(3, vocabulary, vocabulary + 2, 1, static_cast<std::uint64_t>(vocabulary), 12);
        std::vector<float> bias;
        for (std::int64_t v = 0; v < vocabulary; ++v) bias.push_back(0.25f * static_cast<float>(v % 9) - 1.0f);
        w.at(1, 0) = T(-infinity);  // stays -inf
        w.target[1] = 2;
        for (const double softcap : {0.0, 6.0}) {
            for (const bool biased : {false, true}) {
                w.options = {.temperature = 0.7, .scale = 0.5, .softcap = softcap};
                if (biased) w.options.bias = grpo::view<const float>(bias);
                INFO("softcap ", softcap, " bias ", biased);
                check(exec, w);
                const outputs<T> o = evaluate(exec, w, false, false);
                CHECK(static_cast<double>(o.gradient[static_cast<std::size_t>(w.offset + w.stride)]) == 0.0);
            }
        }
    }
}

// Columns that pad hold NaN; masked rows hold NaN, and targets of -100.
template <class T, class Exec>
void check_padding_and_mask(const Exec& exec) {
    for (const std::int64_t columns : {1, 13, 16, 50}) {
        world<T> w(5, 53, 57, 2, static_cast<std::uint64_t>(columns));
        for (std::int64_t i = 0; i < 5; ++i) {
            for (std::int64_t v = columns; v < 53; ++v) w.at(i, v) = T(nan);
            w.target[static_cast<std::size_t>(i)] %= static_cast<std::int32_t>(columns);
        }
        w.options.vocabulary = columns;
        check(exec, w);
        w.mask = {0, 1, 0, 0, 1};
        for (const std::int64_t i : {0, 2, 3}) {
            for (std::int64_t v = 0; v < 53; ++v) w.at(i, v) = T(nan);
            w.target[static_cast<std::size_t>(i)] = -100;
        }
        check(exec, w);
    }
}

}  // namespace softmax_cases
