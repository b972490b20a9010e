// Whitening against tests/vectors/advantage.json, and requirements R1.1, R1.2, R1.12, R1.13, R1.18.
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>

#include "support/advantage_cases.hpp"

namespace {

using namespace advantage_cases;
using std::size_t;

template <class T, class Shape>
std::vector<T> white(const Shape& shape, const std::vector<T>& x, const grpo::whiten_options& o = {}) {
    std::vector<T> out(x.size(), T(77));
    grpo::whiten(shape, x, out, o);
    return out;
}

const std::vector<grpo::whiten_options>& conventions() {
    using P = grpo::eps_placement;
    static const std::vector<grpo::whiten_options> all = {
        {1, 1e-8, P::inside, true}, {1, 1e-8, P::inside, false},        {0, 1e-4, P::floor, true},
        {0, 0.0, P::none, true},    {1, 1e-5, P::outside, true},        {0, 0.0, P::outside, true},
        {1, 0.0, P::inside, true},  {1, 1e-6, P::where_positive, true},
    };
    return all;
}

}  // namespace

TEST_CASE("vectors: whitening under every convention") {
    CHECK(for_each("advantage", "whiten", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> x = c.input<T>("advantage_token");
              const grpo::padded all(1, static_cast<std::int64_t>(x.size()));
              with_mask(c, all, "mask", [&](const auto& shape) {
                  CHECK(wrong(c, "advantage_token", white(shape, x, whiten_options(c.data().at("parameters")))) == "");
              });
          }) == 40);
}

TEST_CASE_TEMPLATE("R1.12 masked memory may hold anything", T, float, double) {
    numbers draw(12);
    const offsets cu = {0, 5, 5, 6, 20};
    const std::vector<T> x = draw.many<T>(20, -3, 3);
    flags mask(20);
    for (auto& m : mask) m = draw.next() % 3 != 0;
    mask[0] = 0;  // the very first entry too
    const auto shape = grpo::ragged(cu).where(mask);
    for (const grpo::whiten_options& o : conventions()) {
        std::vector<T> base;
        for (const T poison : poisons<T>()) {
            std::vector<T> y(x);
            for (size_t i = 0; i < y.size(); ++i) y[i] = mask[i] ? x[i] : poison;
            const std::vector<T> got = white(shape, y, o);
            if (base.empty()) base = got;
            REQUIRE(same_bits(got, base));
        }
        for (size_t i = 0; i < x.size(); ++i) REQUIRE((mask[i] || plus_zero(base[i])));
    }
}

TEST_CASE_TEMPLATE("R1.13 masked columns to the left and right change no bit", T, float, double) {
    numbers draw(13);
    const std::vector<T> x = draw.many<T>(12, -3, 3);
    for (const grpo::whiten_options& o : conventions()) {
        const std::vector<T> base = white(grpo::padded(3, 4), x, o);
        std::vector<T> wide(3 * 9, std::numeric_limits<T>::quiet_NaN()), narrow(12);
        flags mask(3 * 9, 0);
        for (size_t i = 0; i < 12; ++i) {
            wide[i / 4 * 9 + 2 + i % 4] = x[i];
            mask[i / 4 * 9 + 2 + i % 4] = 1;
        }
        const std::vector<T> got = white(grpo::padded(3, 9).where(mask), wide, o);
        for (size_t i = 0; i < 12; ++i) narrow[i] = got[i / 4 * 9 + 2 + i % 4];
        REQUIRE(same_bits(narrow, base));
    }
}

TEST_CASE_TEMPLATE("R1.18 empty, one active entry, all equal: decided, never NaN", T, float, double) {
    for (const grpo::whiten_options& o : conventions()) {
        const std::vector<T> none;
        CHECK(white(grpo::padded(0, 3), none, o).empty());
        const flags nothing = {0, 0};
        const std::vector<T> any = {T(3), T(4)};
        for (const T x : white(grpo::padded(1, 2).where(nothing), any, o)) CHECK(plus_zero(x));
        const flags one = {0, 1};
        const std::vector<T> single = white(grpo::padded(1, 2).where(one), any, o);
        CHECK(plus_zero(single[0]));
        CHECK(single[1] == (o.center ? T(0) : T(4)));
        const std::vector<T> equal(37, static_cast<T>(0.1));
        for (const T x : white(grpo::padded(1, 37), equal, o)) CHECK(x == (o.center ? T(0) : static_cast<T>(0.1)));
    }
}

TEST_CASE("R1.2 a large offset costs no accuracy") {
    // 0, 1, 2, 3 and an offset: mean 1.5, sample variance 5/3.
    std::vector<double> x;
    for (int i = 0; i < 4; ++i) x.push_back(1e9 + i);
    const std::vector<double> got =
        white(grpo::padded(2, 2), x, {.eps = 0.0, .placement = grpo::eps_placement::outside});
    for (int i = 0; i < 4; ++i) {
        CHECK(got[static_cast<size_t>(i)] == doctest::Approx((i - 1.5) / std::sqrt(5.0 / 3.0)).epsilon(1e-14));
    }
}

TEST_CASE("R1.26 rows do not matter: one batch statistic, in place too") {
    numbers draw(26);
    std::vector<double> x = draw.many<double>(24, -1, 1);
    const std::vector<double> a = white(grpo::padded(4, 6), x);
    const std::vector<double> b = white(grpo::padded(1, 24), x);
    CHECK(vectors::difference(a, b, 1e-14) == "");
    grpo::whiten(grpo::padded(4, 6), x, x);
    CHECK(same_bits(x, a));
}

TEST_CASE("R1.34 every option changes the result; ranges and sizes are checked") {
    const std::vector<double> x = {1, 2, 4, 8};
    const grpo::padded one(1, 4);
    const grpo::whiten_options plain{1, 0.5, grpo::eps_placement::inside, true};
    std::vector<grpo::whiten_options> changed(7, plain);
    changed[0].ddof = 0;
    changed[1].eps = 0.25;
    changed[2].placement = grpo::eps_placement::outside;
    changed[3].placement = grpo::eps_placement::floor;
    changed[4].placement = grpo::eps_placement::none;
    changed[5].center = false;
    changed[6].placement = grpo::eps_placement::where_positive;
    for (const auto& o : changed) CHECK_FALSE(same_bits(white(one, x, o), white(one, x, plain)));
    CHECK_THROWS_AS(white(one, x, {.ddof = -1}), grpo::error);
    CHECK_THROWS_AS(white(one, x, {.eps = -1}), grpo::error);
    std::vector<double> few(3);
    CHECK_THROWS_AS(grpo::whiten(one, x, few), grpo::error);
    CHECK_THROWS_AS(grpo::whiten(one, few, few), grpo::error);
}
