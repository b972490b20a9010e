// The laws of the monoids: an identity, associativity, add = merge of one element, any order of parts; and the values at
// the ends of the line.
#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/fold.hpp>

namespace {

bool close(double a, double b) { return a == b || std::abs(a - b) <= 1e-12 * std::max({1.0, std::abs(a), std::abs(b)}); }

// A monoid of numbers with what its state means.
struct statistics {
    using monoid = grpo::moments;
    using state = monoid::state<double>;
    static std::vector<double> meaning(const state& s) { return {s.n, s.mean, s.m2}; }
};
struct log_sum {
    using monoid = grpo::log_sum_exp;
    using state = monoid::state<double>;
    static std::vector<double> meaning(const state& s) { return {monoid::result(s)}; }
};
struct range {
    using monoid = grpo::extrema;
    using state = monoid::state<double>;
    static std::vector<double> meaning(const state& s) { return {s.n, s.least, s.greatest}; }
};

template <class M>
typename M::state of(const std::vector<double>& x) {
    typename M::state s;
    for (const double v : x) M::monoid::add(s, v);
    return s;
}
template <class M>
typename M::state merged(typename M::state a, const typename M::state& b) {
    M::monoid::merge(a, b);
    return a;
}
template <class M>
bool equal(const typename M::state& a, const typename M::state& b) {
    const std::vector<double> x = M::meaning(a), y = M::meaning(b);
    for (std::size_t k = 0; k < x.size(); ++k) {
        if (!close(x[k], y[k])) return false;
    }
    return true;
}

const std::vector<std::vector<double>> parts{
    {}, {0.0}, {1.5}, {-2.0, 3.0, 3.0}, {1024, 1025}, {-1e-8}, {700.0, -700.0}, {-1000.0, -1000.5}, {4.0, 4.0, 4.0, 4.0}};

TEST_CASE_TEMPLATE("the empty state is the identity on both sides", M, statistics, log_sum, range) {
    const typename M::state identity;
    for (const auto& p : parts) {
        const typename M::state s = of<M>(p);
        CHECK(equal<M>(merged<M>(s, identity), s));
        CHECK(equal<M>(merged<M>(identity, s), s));
    }
}

TEST_CASE_TEMPLATE("merging is associative", M, statistics, log_sum, range) {
    for (const auto& p : parts) {
        for (const auto& q : parts) {
            for (const auto& r : parts) {
                const typename M::state a = of<M>(p), b = of<M>(q), c = of<M>(r);
                CHECK(equal<M>(merged<M>(merged<M>(a, b), c), merged<M>(a, merged<M>(b, c))));
            }
        }
    }
}

TEST_CASE_TEMPLATE("merging parts is adding their elements, one by one", M, statistics, log_sum, range) {
    for (const auto& p : parts) {
        for (const auto& q : parts) {
            std::vector<double> all = p;
            all.insert(all.end(), q.begin(), q.end());
            CHECK(equal<M>(merged<M>(of<M>(p), of<M>(q)), of<M>(all)));
            typename M::state one_by_one = of<M>(p);
            for (const double x : q) M::monoid::merge(one_by_one, of<M>({x}));
            CHECK(equal<M>(one_by_one, of<M>(all)));
        }
    }
}

TEST_CASE("R1.1 bit-equal elements have exactly their value as mean and exactly 0 as second moment") {
    for (const double x : {0.1, -3.7, 1e300, 1e-300, 0.0}) {
        for (const int n : {1, 2, 3, 7, 1000}) {
            grpo::moments::state<double> s, halves;
            for (int i = 0; i < n; ++i) grpo::moments::add(s, x);
            CHECK(s.mean == x);
            CHECK(s.m2 == 0.0);
            grpo::moments::merge(halves, s);
            grpo::moments::merge(halves, s);
            CHECK(halves.mean == x);
            CHECK(halves.m2 == 0.0);
            CHECK(halves.n == 2 * n);
        }
    }
}

TEST_CASE("R1.2 a small spread on a large offset keeps its variance") {
    // {1e8, 1e8 + 1, 1e8 + 2}: mean 1e8 + 1, variance 1 with n - 1.
    const auto s = of<statistics>({1e8, 1e8 + 1, 1e8 + 2});
    CHECK(s.mean == 1e8 + 1);
    CHECK(grpo::moments::variance(s, 1) == 1.0);
    CHECK(close(grpo::moments::variance(s, 0), 2.0 / 3.0));
    CHECK(grpo::moments::variance(of<statistics>({5.0}), 1) == 0.0);
    CHECK(grpo::moments::variance(of<statistics>({}), 0) == 0.0);
}

TEST_CASE("log_sum_exp: -inf adds nothing, first or not; a row of nothing but -inf is -inf") {
    const double inf = INFINITY;
    using grpo::log_sum_exp;
    const auto result = [](const std::vector<double>& x) { return log_sum_exp::result(of<log_sum>(x)); };
    CHECK(result({-inf, 2.0}) == 2.0);
    CHECK(result({-inf, -inf, 2.0, -inf}) == 2.0);
    CHECK(result({-inf}) == -inf);
    CHECK(result({-inf, -inf}) == -inf);
    CHECK(result({}) == -inf);
    CHECK(close(result({0.0, 0.0}), std::log(2.0)));
    // The maximum carries: no overflow at 1e4, no underflow at -1e4.
    CHECK(close(result({1e4, 1e4}), 1e4 + std::log(2.0)));
    CHECK(close(result({-1e4, -1e4}), -1e4 + std::log(2.0)));
    CHECK(close(result({-1e4, 1e4}), 1e4));
    auto left = of<log_sum>({-inf});
    log_sum_exp::merge(left, of<log_sum>({-inf, 3.0}));
    CHECK(log_sum_exp::result(left) == 3.0);
    auto nothing = of<log_sum>({});
    log_sum_exp::merge(nothing, of<log_sum>({}));
    CHECK(log_sum_exp::result(nothing) == -inf);
}

TEST_CASE("extrema of one element, of negative ones, and of infinities") {
    CHECK(of<range>({-3.0}).least == -3.0);
    CHECK(of<range>({-3.0}).greatest == -3.0);
    CHECK(of<range>({-3.0, -5.0}).greatest == -3.0);
    CHECK(of<range>({INFINITY, -INFINITY}).least == -INFINITY);
    CHECK(of<range>({INFINITY, -INFINITY}).greatest == INFINITY);
    CHECK(of<range>({}).n == 0.0);
}

TEST_CASE("tally: sums add, maxima are greatest, the first index is the least") {
    using tally = grpo::tally<2, 1>;
    tally::state<double> a, b, identity;
    a.sum[0] = 1;
    a.sum[1] = -2;
    a.maximum[0] = -7;
    a.first = 12;
    b.sum[0] = 10;
    b.maximum[0] = -9;
    b.first = 5;
    tally::state<double> ab = a, ba = b, same = a;
    tally::merge(ab, b);
    tally::merge(ba, a);
    tally::merge(same, identity);
    CHECK(ab.sum[0] == 11);
    CHECK(ab.sum[1] == -2);
    CHECK(ab.maximum[0] == -7);
    CHECK(ab.first == 5);
    CHECK(ba.first == 5);
    CHECK(ba.maximum[0] == -7);
    CHECK(same.first == 12);
    CHECK(same.maximum[0] == -7);
    CHECK(identity.maximum[0] == grpo::lowest);
}

TEST_CASE("affine maps compose as functions do: associative, with an identity, the later one first") {
    using affine = grpo::affine<double>;
    const affine maps[] = {{1, 0}, {0.9, 2}, {-0.5, 1}, {0, 3}, {2, -4}};
    for (const affine& a : maps) {
        for (const affine& b : maps) {
            CHECK(affine::compose(a, b)(1.25) == a(b(1.25)));
            for (const affine& c : maps) {
                const affine left = affine::compose(affine::compose(a, b), c);
                const affine right = affine::compose(a, affine::compose(b, c));
                CHECK(close(left.scale, right.scale));
                CHECK(close(left.offset, right.offset));
            }
        }
        CHECK(affine::compose(a, affine{})(0.75) == a(0.75));
        CHECK(affine::compose(affine{}, a)(0.75) == a(0.75));
    }
}

}  // namespace
