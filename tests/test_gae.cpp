// Generalised advantage estimation and VAPO against tests/vectors/advantage.json, and requirements R1.12, R1.13, R1.37,
// R1.42.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>

#include "support/advantage_cases.hpp"

namespace {

using namespace advantage_cases;
using std::size_t;

// All arrays that GAE may read, owned.
template <class T>
struct episodes {
    std::vector<T> reward, value, bootstrap, discount, lambda_token, lambda_sequence;
    flags terminated, truncated;

    grpo::gae_inputs<T> inputs() const {
        return {.reward = reward,
                .value = value,
                .terminated = terminated,
                .truncated = truncated,
                .bootstrap = bootstrap,
                .discount = discount,
                .lambda_token = lambda_token,
                .lambda_sequence = lambda_sequence};
    }
};

template <class T>
episodes<T> read(const vectors::test_case& c) {
    const auto array = [&](const char* name) { return c.has(name) ? c.input<T>(name) : std::vector<T>{}; };
    const auto flag = [&](const char* name) { return c.has(name) ? c.input<std::uint8_t>(name) : flags{}; };
    return {array("reward_token"), array("value"),   array("bootstrap"), array("discount"), array("lambda_token"), {},
            flag("terminated"),    flag("truncated")};
}

template <class T>
struct result {
    std::vector<T> advantage, returns;
};

template <class T, class Layout>
result<T> run(const Layout& layout, const episodes<T>& x, const grpo::gae_options& o) {
    result<T> out{std::vector<T>(x.reward.size(), T(77)), std::vector<T>(x.reward.size(), T(77))};
    grpo::gae(layout, x.inputs(), o, out.advantage, out.returns);
    return out;
}

// Random episodes with every flag and array in use.
template <class T>
episodes<T> everything(numbers& draw, size_t n, size_t rows) {
    episodes<T> x;
    x.reward = draw.many<T>(n, -1, 1);
    x.value = draw.many<T>(n, -1, 1);
    x.bootstrap = draw.many<T>(n, -1, 1);
    x.discount = draw.many<T>(n, 0.5, 1);
    x.lambda_sequence = draw.many<T>(rows, 0.5, 1);
    x.terminated.resize(n);
    x.truncated.resize(n);
    for (size_t i = 0; i < n; ++i) {
        x.terminated[i] = draw.next() % 7 == 0;
        x.truncated[i] = draw.next() % 7 == 0;
    }
    return x;
}

template <class T>
std::vector<T> chosen(const std::vector<T>& x, const std::vector<size_t>& which) {
    std::vector<T> out;
    for (const size_t i : which) out.push_back(x.empty() ? T{} : x[i]);
    return out;
}

template <class T>
episodes<T> chosen(const episodes<T>& x, const std::vector<size_t>& which) {
    return {
        chosen(x.reward, which), chosen(x.value, which),      chosen(x.bootstrap, which), chosen(x.discount, which), {},
        x.lambda_sequence,       chosen(x.terminated, which), chosen(x.truncated, which)};
}

template <class T>
void poison(episodes<T>& x, const flags& mask, T with) {
    for (size_t i = 0; i < mask.size(); ++i) {
        if (mask[i]) continue;
        x.reward[i] = x.value[i] = x.bootstrap[i] = x.discount[i] = with;
        x.terminated[i] = x.truncated[i] = 1;
    }
}

}  // namespace

TEST_CASE("vectors: GAE, with flags, discounts, lambdas and holes (R1.37, R1.42)") {
    CHECK(for_each("advantage", "gae", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              with_tokens(c, [&](const auto& tokens) {
                  const result<T> got = run(tokens, read<T>(c), {c.number("gamma"), c.number("lambda")});
                  CHECK(wrong(c, "advantage_token", got.advantage) == "");
                  CHECK(wrong(c, "return_token", got.returns) == "");
              });
          }) == 22);
}

TEST_CASE("vectors: VAPO's decoupled and length-adaptive lambdas") {
    CHECK(for_each("advantage", "vapo", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              with_tokens(c, [&](const auto& tokens) {
                  const episodes<T> x = read<T>(c);
                  const double alpha = c.number("alpha");
                  std::vector<T> a(x.reward.size(), T(77)), r(a), lambda;
                  grpo::vapo(tokens, x.inputs(),
                             {c.number("gamma"), c.number("lambda_policy"), c.number("lambda_value"), alpha}, a, r);
                  CHECK(wrong(c, "advantage_token", a) == "");
                  CHECK(wrong(c, "return_token", r) == "");
                  for (std::int64_t row = 0; row < tokens.rows(); ++row) {
                      lambda.push_back(
                          static_cast<T>(alpha > 0 ? grpo::length_adaptive_lambda(alpha, tokens.count_active(row))
                                                   : c.number("lambda_policy")));
                  }
                  CHECK(wrong(c, "lambda_policy", lambda) == "");
              });
          }) == 8);
}

TEST_CASE_TEMPLATE("R1.37 holes equal the compacted sequence, bit by bit, whatever they hold", T, float, double) {
    numbers draw(37);
    const offsets cu = {0, 9, 9, 21, 22, 40};
    const size_t n = 40;
    for (int round = 0; round < 20; ++round) {
        episodes<T> x = everything<T>(draw, n, 5);
        flags mask(n);
        for (auto& m : mask) m = draw.next() % 3 != 0;
        std::vector<size_t> live;
        offsets packed = {0};
        for (size_t row = 0; row + 1 < cu.size(); ++row) {
            for (auto i = static_cast<size_t>(cu[row]); i < static_cast<size_t>(cu[row + 1]); ++i) {
                if (mask[i]) live.push_back(i);
            }
            packed.push_back(static_cast<std::int64_t>(live.size()));
        }
        const result<T> compact = run(grpo::ragged(packed), chosen(x, live), {});
        for (const T with : poisons<T>()) {
            poison(x, mask, with);
            const result<T> holed = run(grpo::ragged(cu).where(mask), x, {});
            REQUIRE(same_bits(chosen(holed.advantage, live), compact.advantage));
            REQUIRE(same_bits(chosen(holed.returns, live), compact.returns));
            for (size_t i = 0; i < n; ++i)
                REQUIRE((mask[i] || (plus_zero(holed.advantage[i]) && plus_zero(holed.returns[i]))));
        }
    }
}

TEST_CASE_TEMPLATE("R1.42 [T, B] equals [B, T], with flags, masks and strides", T, float, double) {
    numbers draw(42);
    const size_t rows = 5, steps = 13, stride = 7;
    const episodes<T> x = everything<T>(draw, rows * steps, rows);
    flags mask(rows * steps);
    for (auto& m : mask) m = draw.next() % 4 != 0;
    std::vector<size_t> from(steps * stride);
    flags turned(steps * stride, 0);
    for (size_t t = 0; t < steps; ++t) {
        for (size_t b = 0; b < rows; ++b) {
            from[t * stride + b] = b * steps + t;
            turned[t * stride + b] = mask[b * steps + t];
        }
    }
    episodes<T> y = chosen(x, from);
    for (const bool masks : {false, true}) {
        const grpo::padded by_row(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(steps));
        const grpo::time_major by_time(static_cast<std::int64_t>(steps), static_cast<std::int64_t>(rows),
                                       static_cast<std::int64_t>(stride));
        // The last time step has no padding behind it.
        const size_t extent = (steps - 1) * stride + rows;
        CHECK(by_time.extent() == static_cast<std::int64_t>(extent));
        std::vector<size_t> all(extent);
        for (size_t i = 0; i < extent; ++i) all[i] = i;
        const episodes<T> z = chosen(y, all);
        const flags m = chosen(turned, all);
        const result<T> a = masks ? run(by_row.where(mask), x, {}) : run(by_row, x, {});
        const result<T> b = masks ? run(by_time.where(m), z, {}) : run(by_time, z, {});
        for (size_t t = 0; t < steps; ++t) {
            for (size_t row = 0; row < rows; ++row) {
                REQUIRE(a.advantage[row * steps + t] == b.advantage[t * stride + row]);
                REQUIRE(a.returns[row * steps + t] == b.returns[t * stride + row]);
            }
        }
    }
}

TEST_CASE_TEMPLATE("R1.13 padding to the left and right changes no bit", T, float, double) {
    numbers draw(13);
    const size_t rows = 3, width = 8;
    const episodes<T> x = everything<T>(draw, rows * width, rows);
    const result<T> base = run(grpo::padded(3, 8), x, {});
    for (const auto& [left, right] : {std::pair<size_t, size_t>{0, 5}, {4, 0}, {3, 2}}) {
        const size_t wide = left + width + right;
        flags mask(rows * wide, 0);
        std::vector<size_t> from(rows * wide, 0), to;
        for (size_t row = 0; row < rows; ++row) {
            for (size_t t = 0; t < width; ++t) {
                to.push_back(row * wide + left + t);
                from[to.back()] = row * width + t;
                mask[to.back()] = 1;
            }
        }
        episodes<T> y = chosen(x, from);
        poison(y, mask, poisons<T>()[0]);
        const result<T> got = run(grpo::padded(3, static_cast<std::int64_t>(wide)).where(mask), y, {});
        CHECK(same_bits(chosen(got.advantage, to), base.advantage));
        CHECK(same_bits(chosen(got.returns, to), base.returns));
    }
}

TEST_CASE("R1.42 terminated and truncated are two things") {
    // One step after another by hand: r = 1, V = 0.5, gamma = 0.5, lambda = 1.
    episodes<double> x{{1, 1}, {0.5, 0.5}, {9, 9}, {}, {}, {}, {0, 0}, {0, 0}};
    const grpo::padded row(1, 2);
    const grpo::gae_options o{0.5, 1.0};
    CHECK(run(row, x, o).advantage == std::vector<double>{1 + 0.25 - 0.5 + 0.5 * 0.5, 0.5});
    x.truncated = {1, 0};
    CHECK(run(row, x, o).advantage == std::vector<double>{1 + 4.5 - 0.5, 0.5});
    x.truncated = {0, 1};
    CHECK(run(row, x, o).advantage == std::vector<double>{0.75 + 0.5 * 5.0, 5.0});
    x.terminated = {0, 1};  // an episode that ended is not bootstrapped
    CHECK(run(row, x, o).advantage == std::vector<double>{1.0, 0.5});
    x.terminated = {1, 0};
    x.truncated = {1, 0};
    CHECK(run(row, x, o).advantage == std::vector<double>{0.5, 0.5});
}

TEST_CASE("R1.42 lambda per sequence equals a separate call per sequence") {
    numbers draw(3);
    episodes<double> x{
        draw.many<double>(12, -1, 1), draw.many<double>(12, -1, 1), {}, {}, {}, {0.25, 1.0, 0.5}, {}, {}};
    const result<double> together = run(grpo::padded(3, 4), x, {0.9, 0.0});
    for (size_t row = 0; row < 3; ++row) {
        std::vector<size_t> part;
        for (size_t t = 0; t < 4; ++t) part.push_back(row * 4 + t);
        const episodes<double> alone{chosen(x.reward, part), chosen(x.value, part), {}, {}, {}, {}, {}, {}};
        const result<double> got = run(grpo::padded(1, 4), alone, {0.9, x.lambda_sequence[row]});
        CHECK(same_bits(got.advantage, chosen(together.advantage, part)));
    }
}

TEST_CASE("R1.37 sizes that do not match, and ranges, are errors before anything is written") {
    const episodes<double> x{{1, 2, 3}, {1, 2, 3}, {}, {}, {}, {}, {}, {0, 0, 1}};
    std::vector<double> a(3, 77.0), r(3, 77.0), few(2);
    const grpo::padded row(1, 3);
    CHECK_THROWS_AS(grpo::gae(row, x.inputs(), {}, a, r), grpo::error);  // truncated without bootstrap
    const grpo::gae_inputs<double> plain{.reward = x.reward, .value = x.value};
    CHECK_THROWS_AS(grpo::gae(row, plain, {.gamma = -1}, a, r), grpo::error);
    CHECK_THROWS_AS(grpo::gae(row, plain, {.lambda = -1}, a, r), grpo::error);
    CHECK_THROWS_AS(grpo::gae(row, plain, {}, few, r), grpo::error);
    CHECK_THROWS_AS(grpo::gae(row, plain, {}, a, few), grpo::error);
    CHECK_THROWS_AS(grpo::gae(grpo::padded(1, 4), plain, {}, a, r), grpo::error);
    CHECK_THROWS_AS(grpo::gae(grpo::time_major(3, 2, 1), plain, {}, a, r), grpo::error);
    CHECK_THROWS_AS(grpo::vapo(row, plain, {.alpha = -1}, a, r), grpo::error);
    CHECK(a == std::vector<double>(3, 77.0));
    CHECK(r == std::vector<double>(3, 77.0));
}

TEST_CASE("R1.34 every array of GAE changes the result") {
    numbers draw(34);
    const size_t n = 6;
    const episodes<double> plain{draw.many<double>(n, -1, 1), draw.many<double>(n, -1, 1), {}, {}, {}, {}, {}, {}};
    const grpo::padded row(1, 6);
    const grpo::gae_options o{0.9, 0.8};
    const result<double> base = run(row, plain, o);
    std::vector<episodes<double>> changed(5, plain);
    changed[0].terminated = {0, 0, 1, 0, 0, 0};
    changed[1].truncated = {0, 0, 1, 0, 0, 0};
    changed[1].bootstrap = draw.many<double>(n, 2, 3);
    changed[2].discount = draw.many<double>(n, 0, 0.5);
    changed[3].lambda_token = draw.many<double>(n, 0, 0.5);
    changed[4].lambda_sequence = {0.1};
    for (const episodes<double>& x : changed) CHECK_FALSE(same_bits(run(row, x, o).advantage, base.advantage));
    CHECK_FALSE(same_bits(run(row, plain, {0.8, 0.8}).advantage, base.advantage));
    CHECK_FALSE(same_bits(run(row, plain, {0.9, 0.7}).advantage, base.advantage));
}
