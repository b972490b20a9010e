// Clauses of requirements that belong to no single room, or that its own tests leave out.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

namespace {

using mask_t = std::vector<std::uint8_t>;

template <class T>
std::uint64_t bits_of(T x) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

TEST_CASE_TEMPLATE("R1.1 equal rewards give +0.0 in every storage type, for every size to 1024", T, double, float,
                   grpo::bfloat16, grpo::float16) {
    for (const double constant : {0.1, 1.0 / 3.0, 1e4 + 0.1, -7.3}) {
        for (std::int64_t size = 1; size <= 1024; size += size < 70 ? 1 : 53) {
            const std::vector<T> reward(static_cast<std::size_t>(size), T(constant));
            for (const double eps : {0.0, 1e-9}) {
                std::vector<T> a(reward.size(), T(77));
                grpo::group_normalised(grpo::padded(1, size), reward, a, {.eps = eps});
                bool zero = true;
                for (const T& one : a) zero = zero && bits_of(one) == 0;
                REQUIRE(zero);
            }
        }
    }
}

// (r - mean) / (s + eps) in long double.
std::vector<double> oracle(const std::vector<float>& r, double eps) {
    long double mean = 0, square = 0;
    for (const float x : r) mean += static_cast<long double>(x);
    mean /= static_cast<long double>(r.size());
    for (const float x : r) square += (static_cast<long double>(x) - mean) * (static_cast<long double>(x) - mean);
    const long double s = std::sqrt(square / static_cast<long double>(r.size() - 1));
    std::vector<double> a;
    for (const float x : r) {
        a.push_back(static_cast<double>((static_cast<long double>(x) - mean) / (s + static_cast<long double>(eps))));
    }
    return a;
}

TEST_CASE("R1.2 rewards stored in float around 1e4 and 100, and the published pair, match the exact variance") {
    for (const std::vector<float>& r : {std::vector<float>{1e4f, 1e4f + 1, 1e4f + 2, 1e4f + 3},
                                        std::vector<float>{100.0f, 100.001f, 100.002f, 100.003f, 100.005f}}) {
        std::vector<float> a(r.size());
        grpo::group_normalised(grpo::padded(1, static_cast<std::int64_t>(r.size())), r, a);
        const std::vector<double> expected = oracle(r, 1e-6);
        for (std::size_t i = 0; i < r.size(); ++i) {
            CHECK(static_cast<double>(a[i]) == doctest::Approx(expected[i]).epsilon(1e-5));
        }
    }
    // Published: verl pull request 6348.
    std::vector<float> a(4);
    grpo::group_normalised(grpo::padded(2, 2), std::vector<float>{1.0f, 1.00001f, 2.0f, 2.00001f}, a);
    for (const std::size_t i : {0u, 2u}) {
        CHECK(static_cast<double>(a[i]) == doctest::Approx(-0.6196008).epsilon(1e-6));
        CHECK(static_cast<double>(a[i + 1]) == doctest::Approx(0.6196008).epsilon(1e-6));
    }
}

// Two groups of two sequences, the first one degenerate; 2, 1, 3 and 2 tokens.
struct rollouts {
    std::vector<std::int64_t> cu{0, 2, 3, 6, 8};
    std::vector<double> logp{-1, -2, -1, -0.5, -1.5, -1, -2, -1};
    std::vector<double> old{-1.25, -2, -1, -0.75, -1.5, -1, -2, -0.75};
    std::vector<double> ref{-1.5, -1, -2, -1, -1, -1.25, -2.5, -0.5};
    std::vector<double> reward{1, 1, 0, 1}, advantage = std::vector<double>(4);
    std::vector<double> useful_sequence = std::vector<double>(4), useful_token = std::vector<double>(8);

    rollouts() {
        std::vector<grpo::group_report> report(2);
        std::vector<double> useful_group;
        const grpo::padded groups(2, 2);
        grpo::group_normalised(groups, reward, advantage, {}, report);
        for (const grpo::group_report& g : report) useful_group.push_back(g.degenerate ? 0 : 1);
        grpo::expand_rows(groups, useful_group, useful_sequence);
        grpo::expand_rows(grpo::ragged(cu), useful_sequence, useful_token);
    }

    template <class Shape, class Term>
    std::vector<double> gradient(const Shape& shape, const Term& term, double denominator) const {
        std::vector<double> g(8, 7);
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref), grpo::keep(useful_token),
                            grpo::advantage(grpo::by_sequence(advantage)));
        (void)grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, b, denominator,
                             grpo::d_logp(g));
        return g;
    }
};

TEST_CASE("R1.5 degenerate groups leave the denominator, or the KL term, or both, as the caller likes") {
    const rollouts x;
    CHECK(x.useful_token == std::vector<double>{0, 0, 0, 1, 1, 1, 1, 1});
    const auto all = grpo::ragged(x.cu);
    const auto useful = all.where(x.useful_token);
    const auto over = grpo::aggregation::token_mean();
    CHECK(over.denominator(grpo::count(all)) == 8);
    CHECK(over.denominator(grpo::count(useful)) == 5);
    const auto kl_slope = [&](std::size_t t) { return 0.5 * (1 - std::exp(x.ref[t] - x.logp[t])); };
    const auto policy_slope = [&](std::size_t t) {
        return -x.advantage[t < 6 ? 2 : 3] * std::exp(x.logp[t] - x.old[t]);
    };
    const auto check = [&](const std::vector<double>& g, double n, bool kl_everywhere) {
        for (std::size_t t = 0; t < 8; ++t) {
            const double kl = t >= 3 || kl_everywhere ? kl_slope(t) : 0.0;
            CHECK(g[t] == doctest::Approx(((t >= 3 ? policy_slope(t) : 0.0) + kl) / n).epsilon(1e-12));
        }
    };
    const grpo::clipped open{.low = 1, .high = 1};
    // As it is: everything counts, and the degenerate group is pulled to the reference.
    check(x.gradient(all, open + 0.5 * grpo::kl{}, 8), 8, true);
    // Out of the denominator alone.
    check(x.gradient(all, open + 0.5 * grpo::kl{}, over.denominator(grpo::count(useful))), 5, true);
    // Out of the KL term alone.
    check(x.gradient(all, open + 0.5 * (grpo::selected{} * grpo::kl{}), 8), 8, false);
    // Out of both.
    check(x.gradient(useful, open + 0.5 * grpo::kl{}, over.denominator(grpo::count(useful))), 5, false);
}

TEST_CASE("R1.11 all groups of one member is an assertion on the reports") {
    const std::vector<double> reward{1, 0, 1};
    std::vector<double> a(3);
    std::vector<grpo::group_report> report(3);
    grpo::group_normalised(grpo::padded(3, 1), reward, a, {}, report);
    for (const grpo::group_report& g : report) {
        CHECK(g.size == 1);
        CHECK(g.degenerate);
    }
}

TEST_CASE("R1.15 p log p is 0 with gradient 0 where p is 0, and -inf behind a mask or a selection stays there") {
    const double inf = std::numeric_limits<double>::infinity();
    const std::vector<double> logits{0, -inf, 0, -inf}, one{1};
    const std::vector<int> target{0};
    std::vector<double> logp(1), entropy(1), gradient(4, 7);
    const auto in = grpo::logits(logits, 1, 4);
    grpo::token_logp(grpo::serial{}, in, target, {}, grpo::view<double>(logp), grpo::view<double>(entropy));
    CHECK(entropy[0] == doctest::Approx(std::log(2.0)).epsilon(1e-15));
    grpo::d_logits(grpo::serial{}, in, target, {}, grpo::view<const double>(one), grpo::view<const double>(one),
                   grpo::view<double>(gradient));
    CHECK(gradient[0] == doctest::Approx(0.5).epsilon(1e-15));
    CHECK(bits_of(gradient[1]) == 0);
    CHECK(gradient[2] == doctest::Approx(-0.5).epsilon(1e-15));
    CHECK(bits_of(gradient[3]) == 0);
    // Entropy times a masked token, and a KL to an infinite reference that a selection leaves out.
    rollouts x;
    x.logp[1] = -inf;
    x.ref[1] = inf;
    const mask_t mask{1, 0, 1, 1, 1, 1, 1, 1};
    const auto masked = x.gradient(grpo::ragged(x.cu).where(mask), grpo::clipped{} + 0.5 * grpo::kl{}, 7);
    CHECK(bits_of(masked[1]) == 0);
    x.logp[1] = -2;
    x.ref[1] = std::numeric_limits<double>::quiet_NaN();
    CHECK(x.gradient(grpo::ragged(x.cu), grpo::selected{} * grpo::kl{}, 8)[1] == 0.0);
}

TEST_CASE("R1.19 a bound of 11.09 keeps the ratio inside a half, one above 11.1 does not") {
    const std::vector<grpo::float16> logp{grpo::float16(-1)}, old{grpo::float16(-13)};
    const std::vector<float> advantage{-1};
    const grpo::batch b(grpo::padded(1, 1), grpo::logp(logp), grpo::logp_old(old), grpo::advantage(advantage));
    const auto slope = [&](double bound) {
        const grpo::clipped term{.bound = {bound, grpo::outside::straight_through}};
        std::vector<grpo::float16> g(1);
        (void)grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_sum()}, b, 1.0,
                             grpo::d_logp(g));
        return static_cast<float>(g[0]);
    };
    CHECK(slope(11.09) == 65504.0f);
    CHECK(std::isinf(slope(11.1)));
}

TEST_CASE_TEMPLATE("R1.19 rewards and advantages in 16-bit storage give what float gives for the same numbers", T,
                   grpo::bfloat16, grpo::float16) {
    const std::vector<float> wide{0.5f, -1, 2, 0, 1, 1, 3, -0.25f};
    std::vector<T> narrow;
    for (const float x : wide) narrow.push_back(T(x));
    const grpo::padded groups(2, 4);
    const auto check = [&](const auto& f) {
        std::vector<float> expected(8, 77);
        std::vector<T> got(8, T(77));
        f(wide, expected);
        f(narrow, got);
        for (std::size_t i = 0; i < 8; ++i) CHECK(got[i].bits == T(expected[i]).bits);
    };
    check([&](const auto& r, auto& a) { grpo::group_normalised(groups, r, a); });
    check([&](const auto& r, auto& a) { grpo::gpg_advantage(groups, r, a); });
    check([&](const auto& r, auto& a) { grpo::pass_at_k_advantage(groups, r, a); });
    check([&](const auto& r, auto& a) { grpo::rloo(groups, r, a); });
    check([&](const auto& r, auto& a) { grpo::discounted_returns(groups, 0.5, r, a); });
    check([&](const auto& r, auto& a) { grpo::shape_rewards(r, grpo::reward_clip{.low = -0.5, .high = 1}, a); });
    std::vector<double> best(2), expected(2);
    (void)grpo::best_of_n(groups, wide, 2, grpo::draw::without_replacement, expected);
    (void)grpo::best_of_n(groups, narrow, 2, grpo::draw::without_replacement, best);
    CHECK(best == expected);
}

TEST_CASE(
    "R1.20 the defaults at A < 0, log-ratio 100 and logp_ref - logp 100: finite, and one clamped token for each") {
    for (const bool of_reference : {false, true}) {
        const std::vector<float> logp{-1, -101}, old{of_reference ? -1.0f : -101.0f, -101};
        const std::vector<float> ref{of_reference ? 99.0f : -1.0f, -101}, advantage{-1};
        std::vector<float> g(2);
        const auto recipe = grpo::recipe::grpo();
        const grpo::batch b(grpo::padded(1, 2), grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref),
                            grpo::advantage(grpo::by_sequence(advantage)));
        const auto r = grpo::evaluate(
            grpo::serial{}, grpo::objective{recipe.objective.term, grpo::aggregation::token_sum()}.diagnosed(), b, 2.0,
            grpo::d_logp(g));
        CHECK(std::isfinite(r.sum));
        CHECK(std::isfinite(g[0]));
        CHECK(r.metrics.clamped == 1.0);
        CHECK(r.nonfinite == 0);
    }
}

TEST_CASE("R1.33 fraction outside and effective sample size of the rules that drop") {
    const std::vector<double> old(4, 0.0);
    const std::vector<double> rollout{-std::log(4.0), 0.0, std::log(4.0), 0.0};  // w = 4, 1, 1/4, 1
    const grpo::batch b(grpo::padded(2, 2), grpo::logp_old(old), grpo::logp_rollout(rollout));
    std::vector<double> w(4);
    const auto ice = grpo::correction_weights(b, grpo::correction::icepop(0.5, 2), w);
    CHECK(ice.outside_fraction() == 0.5);
    CHECK(ice.effective_sample_size() == 2.0);  // 0, 1, 0, 1
    const auto mask = grpo::correction_weights(b, grpo::correction::sequence_mask(3), w);
    CHECK(mask.outside_fraction() == 0.5);  // the sequence of weight 4: both its tokens
    CHECK(mask.effective_sample_size() == doctest::Approx(2.0).epsilon(1e-14));
    const auto capped = grpo::correction_weights(b, grpo::correction::tis(2, grpo::correction_level::sequence), w);
    CHECK(w[0] == 2.0);
    CHECK(w[1] == 2.0);
    CHECK(w[2] == doctest::Approx(0.25).epsilon(1e-14));
    CHECK(capped.outside_fraction() == 0.5);
}

TEST_CASE("R1.42 lambda by step equals the scalar where all are equal, and acts at its own step") {
    const std::vector<double> reward{1, 2, 3}, value{0.5, 0.25, 1}, same{0.25, 0.25, 0.25}, cut{0.25, 0, 0.25};
    std::vector<double> scalar(3), array(3), stepwise(3), r(3);
    grpo::gae_inputs<double> in{.reward = reward, .value = value};
    grpo::gae(grpo::padded(1, 3), in, {.gamma = 0.5, .lambda = 0.25}, scalar, r);
    in.lambda_token = same;
    grpo::gae(grpo::padded(1, 3), in, {.gamma = 0.5, .lambda = 9}, array, r);
    CHECK(array == scalar);
    in.lambda_token = cut;  // A_1 = δ_1 = 2 + 0.5 · 1 - 0.25, and A_0 = 0.625 + 0.125 A_1
    grpo::gae(grpo::padded(1, 3), in, {.gamma = 0.5}, stepwise, r);
    CHECK(stepwise == std::vector<double>{0.625 + 0.125 * 2.25, 2.25, 2});
    std::vector<double> by_time(3);
    grpo::gae(grpo::time_major(3, 1), in, {.gamma = 0.5}, by_time, r);
    CHECK(by_time == stepwise);
}

}  // namespace
