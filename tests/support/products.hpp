// Matrix products against triple loops in long double. Operands are eighths in [-2, 2]: 16-bit storage holds them, and
// sums of 129 products are exact in float in any order, so every entry must be equal to the last bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/head/gemm.hpp>

#include <support/adapted.hpp>

namespace products {

inline constexpr std::int64_t extents[] = {0, 1, 2, 3, 17, 64, 129};

// A small generator of its own, so that all platforms see the same numbers.
struct numbers {
    std::uint32_t state;

    std::uint32_t next() {
        state = state * 1664525u + 1013904223u;
        return state >> 16;
    }
    double eighth() { return static_cast<double>(static_cast<int>(next() % 33u) - 16) / 8; }
    double between_minus_one_and_one() { return static_cast<double>(next()) / 32768.0 - 1; }
};

inline double as_double(double x) {
    return x;
}
inline double as_double(float x) {
    return static_cast<double>(x);
}
inline double as_double(grpo::bfloat16 x) {
    return static_cast<double>(x);
}
inline double as_double(grpo::float16 x) {
    return static_cast<double>(x);
}

// The numbers of one product, as the types A and B hold them, and what comes out, with the same of absolute values for
// bounds.
template <class A, class B>
struct example {
    std::int64_t m, n, k;
    std::vector<double> a, b;
    std::vector<long double> product, size;

    template <class Draw>
    example(std::int64_t rows, std::int64_t columns, std::int64_t depth, Draw&& draw) : m(rows), n(columns), k(depth) {
        for (std::int64_t i = 0; i < m * k; ++i) a.push_back(as_double(static_cast<A>(draw())));
        for (std::int64_t i = 0; i < k * n; ++i) b.push_back(as_double(static_cast<B>(draw())));
        for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
                long double sum = 0, total = 0;
                for (std::int64_t p = 0; p < k; ++p) {
                    const long double term = static_cast<long double>(a[static_cast<std::size_t>(i * k + p)]) *
                                             static_cast<long double>(b[static_cast<std::size_t>(p * n + j)]);
                    sum += term;
                    total += std::fabs(term);
                }
                product.push_back(sum);
                size.push_back(total);
            }
        }
    }
};

// These values as a rows × columns operand, in memory with `gap` entries of NaN after each of its rows.
template <class T>
struct matrix {
    std::int64_t stride;
    bool transposed;
    std::vector<T> memory;

    matrix(const std::vector<double>& values, std::int64_t rows, std::int64_t columns, bool turned, std::int64_t gap)
        : stride((turned ? rows : columns) + gap),
          transposed(turned),
          memory(static_cast<std::size_t>((turned ? columns : rows) * stride),
                 T(std::numeric_limits<float>::quiet_NaN())) {
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j) {
                memory[static_cast<std::size_t>(transposed ? j * stride + i : i * stride + j)] =
                    static_cast<T>(values[static_cast<std::size_t>(i * columns + j)]);
            }
        }
    }

    grpo::operand<T> operand() const { return {memory.data(), stride, transposed}; }
};

// How many entries of one product differ from the example's, entries written in the gaps of c included.
template <class C, class A, class B, class Policy>
int wrong_entries(const Policy& policy, const example<A, B>& x, bool turn_a, bool turn_b, double beta) {
    static_assert(grpo::multiplies<Policy, A, B, C>);
    constexpr std::int64_t gap = 3;
    const matrix<A> a(x.a, x.m, x.k, turn_a, gap);
    const matrix<B> b(x.b, x.k, x.n, turn_b, gap + 2);
    const std::int64_t stride = x.n + gap;
    std::vector<C> c(static_cast<std::size_t>(x.m * stride), std::numeric_limits<C>::quiet_NaN());
    numbers draw{3};
    if (beta != 0) {
        for (C& entry : c) entry = static_cast<C>(draw.eighth());
    }
    const std::vector<C> before = c;
    policy.multiply(x.m, x.n, x.k, a.operand(), b.operand(), static_cast<C>(beta), c.data(), stride);
    int wrong = 0;
    for (std::int64_t i = 0; i < x.m; ++i) {
        for (std::int64_t j = 0; j < stride; ++j) {
            const auto at = static_cast<std::size_t>(i * stride + j);
            const long double old =
                beta == 0 ? 0 : static_cast<long double>(beta) * static_cast<long double>(before[at]);
            const bool same = c[at] == before[at] || (c[at] != c[at] && before[at] != before[at]);
            const bool right =
                j < x.n ? static_cast<long double>(c[at]) == old + x.product[static_cast<std::size_t>(i * x.n + j)]
                        : same;
            wrong += right ? 0 : 1;
        }
    }
    return wrong;
}

template <class A, class B>
example<A, B> eighths(std::int64_t m, std::int64_t n, std::int64_t k) {
    numbers draw{static_cast<std::uint32_t>(m * 7 + n * 31 + k * 101 + 1)};
    return example<A, B>(m, n, k, [&] { return draw.eighth(); });
}

// All sizes, both ways of either operand.
template <class A, class B, class C, class Policy>
void check_all(const Policy& policy, const std::vector<double>& betas) {
    for (const std::int64_t m : extents) {
        for (const std::int64_t n : extents) {
            for (const std::int64_t k : extents) {
                const example<A, B> x = eighths<A, B>(m, n, k);
                for (int way = 0; way < 4; ++way) {
                    for (const double beta : betas) {
                        CAPTURE(m);
                        CAPTURE(n);
                        CAPTURE(k);
                        CAPTURE(way);
                        CAPTURE(beta);
                        REQUIRE(wrong_entries<C>(policy, x, (way & 1) != 0, (way & 2) != 0, beta) == 0);
                    }
                }
            }
        }
    }
}

// Numbers that round, and more terms than any block has: within the bound for sums of k terms in C.
template <class A, class B, class C, class Policy>
void check_rounding(const Policy& policy) {
    constexpr std::int64_t m = 9, n = 37, k = 1100;
    numbers draw{5};
    const example<A, B> x(m, n, k, [&] { return draw.between_minus_one_and_one(); });
    const matrix<A> a(x.a, m, k, false, 1);
    const matrix<B> b(x.b, k, n, true, 0);
    std::vector<C> c(static_cast<std::size_t>(m * n), C(0.25));
    policy.multiply(m, n, k, a.operand(), b.operand(), C(1), c.data(), n);
    for (std::size_t i = 0; i < c.size(); ++i) {
        const long double bound =
            (k + 1) * static_cast<long double>(std::numeric_limits<C>::epsilon()) * (x.size[i] + 1);
        CHECK(std::fabs(static_cast<long double>(c[i]) - x.product[i] - 0.25L) <= bound);
    }
}

// Two threads at once, one policy, each with shapes and a c of its own.
template <class A, class B, class C, class Policy>
void check_two_threads(const Policy& policy) {
    int wrong[2] = {0, 0};
    const auto work = [&](int who) {
        const example<A, B> both = eighths<A, B>(20, 64, 64);
        for (int round = 0; round < 6; ++round) {
            const example<A, B> own = eighths<A, B>(17 + round, 40 + who, 33);
            wrong[who] += wrong_entries<C>(policy, own, round % 2 == 0, who == 0, round % 3 == 0 ? 1 : 0);
            wrong[who] += wrong_entries<C>(policy, both, false, true, 0);
        }
    };
    std::thread other(work, 1);
    work(0);
    other.join();
    CHECK(wrong[0] == 0);
    CHECK(wrong[1] == 0);
}

// What every policy refuses, by its name, with c left as it was.
template <class T, class Policy>
void check_refusals(const Policy& policy, const std::string& name) {
    const std::vector<T> a(12, T(1.0f)), b(12, T(1.0f));
    std::vector<float> c(12, 7.0f);
    const grpo::operand x{a.data(), 3}, y{b.data(), 4};
    const grpo::operand<T> none{nullptr, 3};
    const auto said = [&](std::int64_t m, std::int64_t n, std::int64_t k, auto left, auto right, std::int64_t stride) {
        return adapted::sentence([&] { policy.multiply(m, n, k, left, right, 0.0f, c.data(), stride); });
    };
    CHECK(said(-1, 4, 3, x, y, 4) == "grpo::" + name + ": m is -1, but must be at least 0");
    CHECK(said(2, -4, 3, x, y, 4) == "grpo::" + name + ": n is -4, but must be at least 0");
    CHECK(said(2, 4, -3, x, y, 4) == "grpo::" + name + ": k is -3, but must be at least 0");
    CHECK(said(2, 4, 4, x, y, 4) == "grpo::" + name + ": a has stride 3, but its rows have 4 entries");
    CHECK(said(4, 4, 3, grpo::operand{a.data(), 3, true}, y, 4) ==
          "grpo::" + name + ": a has stride 3, but its rows have 4 entries");
    CHECK(said(2, 5, 2, x, y, 5) == "grpo::" + name + ": b has stride 4, but its rows have 5 entries");
    CHECK(said(2, 4, 3, x, y, 3) == "grpo::" + name + ": c has stride 3, but its rows have 4 entries");
    CHECK(said(2, 4, 3, none, y, 4) == "grpo::" + name + ": a is a null pointer, but 3 entries are needed");
    CHECK(adapted::sentence([&] { policy.multiply(2, 4, 3, x, y, 0.0f, static_cast<float*>(nullptr), 4); }) ==
          "grpo::" + name + ": c is a null pointer, but 4 entries are needed");
    CHECK(c == std::vector<float>(12, 7.0f));
    // One row needs no stride, and what is empty no memory.
    CHECK(said(1, 4, 3, grpo::operand{a.data(), 0}, y, 0) == "");
    CHECK(c[0] == 3.0f);
    CHECK(c[4] == 7.0f);
    CHECK(said(0, 0, 0, none, none, 0) == "");
    const grpo::operand<T> nothing{nullptr, 0};
    CHECK(said(1, 4, 0, nothing, nothing, 4) == "");
    CHECK(c == std::vector<float>{0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7});
}

}  // namespace products
