// What is not a loss, on a block of threads and on the same block as if its memory were a device's: serial's results, and no
// data race (run under ThreadSanitizer).
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/elsewhere.hpp>
#include <support/lanes.hpp>

namespace {

template <class T>
std::vector<T> numbers(std::size_t n, unsigned seed) {
    std::vector<T> x(n);
    std::uint32_t state = seed * 2654435761u + 1;
    for (T& v : x) {
        state = state * 1664525u + 1013904223u;
        v = static_cast<T>(static_cast<double>(state >> 8) / 16777216.0 - 0.5);
    }
    return x;
}

// Rows of lengths 3, 0, 17, 1, 8, 29, with holes.
struct rows_of_any_length {
    std::vector<std::int64_t> cu{0, 3, 3, 20, 21, 29, 58};
    std::vector<std::uint8_t> mask = std::vector<std::uint8_t>(58, 1);
    std::size_t n = 58;

    rows_of_any_length() {
        for (const std::size_t hole : {1u, 5u, 6u, 19u, 20u, 33u, 57u}) mask[hole] = 0;
    }
    auto shape() const { return grpo::ragged(grpo::view(cu.data(), 7), 58); }
    auto masked() const { return shape().where(mask); }
};

// The first entry that differs by more than the tolerance, or "".
template <class T>
std::string difference(const std::vector<T>& got, const std::vector<T>& expected, double tolerance) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double a = static_cast<double>(got[i]);
        const double b = static_cast<double>(expected[i]);
        if (!(std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)))) {
            return "[" + std::to_string(i) + "] " + std::to_string(a) + " != " + std::to_string(b);
        }
    }
    return "";
}

// f(executor, out): the entries of `out` that it writes are serial's on every executor.
template <class T, class F>
void same_everywhere(std::size_t n, const F& f, double tolerance = 1e-6) {
    std::vector<T> expected(n, T(7));
    std::vector<T> block(n, T(7));
    std::vector<T> there(n, T(7));
    f(grpo::serial{}, expected);
    f(lanes<4>{}, block);
    f(elsewhere<4>{}, there);
    CHECK(difference(block, expected, tolerance) == "");
    CHECK(difference(there, expected, tolerance) == "");
}

TEST_CASE("group statistics, every option") {
    const rows_of_any_length rows;
    const auto reward = numbers<float>(rows.n, 1);
    for (const auto scale : {grpo::group_scale::group, grpo::group_scale::batch, grpo::group_scale::none,
                             grpo::group_scale::leave_one_out, grpo::group_scale::about_baseline}) {
        for (const auto baseline : {grpo::group_baseline::mean, grpo::group_baseline::leave_one_out}) {
            for (const auto singleton : {grpo::singleton_rule::zero, grpo::singleton_rule::raw_reward}) {
                const grpo::group_options options{.baseline = baseline, .scale = scale, .singleton = singleton};
                same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                    grpo::group_normalised(exec, rows.shape(), reward, out, options);
                });
                same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                    grpo::group_normalised(exec, rows.masked(), reward, out, options);
                });
            }
        }
    }
}

TEST_CASE("group reports, sums the same bits in every order") {
    const rows_of_any_length rows;
    const auto reward = numbers<double>(rows.n, 2);
    std::vector<double> out(rows.n);
    std::vector<grpo::group_report> expected(6), block(6), there(6);
    grpo::group_normalised(grpo::serial{}, rows.masked(), reward, out, {}, expected);
    grpo::group_normalised(lanes<4>{}, rows.masked(), reward, out, {}, block);
    grpo::group_normalised(elsewhere<4>{}, rows.masked(), reward, out, {}, there);
    for (std::size_t g = 0; g < 6; ++g) {
        for (const auto* got : {&block[g], &there[g]}) {
            CHECK(got->size == expected[g].size);
            CHECK(got->mean == expected[g].mean);
            CHECK(got->std == expected[g].std);
            CHECK(got->degenerate == expected[g].degenerate);
        }
    }
}

TEST_CASE("whitening") {
    const rows_of_any_length rows;
    const auto x = numbers<float>(rows.n, 3);
    for (const bool center : {true, false}) {
        const grpo::whiten_options options{.center = center};
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::whiten(exec, rows.masked(), x, out, options); });
    }
    const std::vector<float> equal(rows.n, 0.1f);
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::whiten(exec, rows.masked(), equal, out); }, 0);
    const std::vector<std::uint8_t> none(rows.n, 0);
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::whiten(exec, rows.shape().where(none), x, out); }, 0);
}

TEST_CASE("recurrences over tokens") {
    const rows_of_any_length rows;
    const auto reward = numbers<float>(rows.n, 4);
    const auto value = numbers<float>(rows.n, 5);
    const auto per_sequence = numbers<float>(6, 6);
    const std::size_t n = rows.n;
    const auto on = [&](const auto& shape) {
        const auto halves = [&](auto& out) {
            return std::pair{grpo::view(out.data(), static_cast<std::int64_t>(n)),
                             grpo::view(out.data() + n, static_cast<std::int64_t>(n))};
        };
        std::vector<std::uint8_t> over(n, 0);
        over[10] = over[40] = 1;
        const grpo::gae_inputs<float> plain{.reward = reward, .value = value};
        const grpo::gae_inputs<float> cut{.reward = reward, .value = value, .terminated = over};
        for (const auto& in : {plain, cut}) {
            same_everywhere<float>(2 * n, [&](const auto& exec, auto& out) {
                grpo::gae(exec, shape, in, {.gamma = 0.99, .lambda = 0.95}, halves(out).first, halves(out).second);
            });
            same_everywhere<float>(2 * n, [&](const auto& exec, auto& out) {
                grpo::vapo(exec, shape, in, {}, halves(out).first, halves(out).second);
            });
        }
        same_everywhere<float>(2 * n, [&](const auto& exec, auto& out) {
            grpo::remax(exec, shape, reward, per_sequence, halves(out).first, halves(out).second);
        });
        same_everywhere<float>(2 * n, [&](const auto& exec, auto& out) {
            grpo::reinforce_plus_plus(exec, shape, reward, halves(out).first, halves(out).second);
        }, 1e-5);
        same_everywhere<float>(n, [&](const auto& exec, auto& out) {
            grpo::discounted_returns(exec, shape, 0.9, reward, out);
        });
        same_everywhere<float>(n, [&](const auto& exec, auto& out) {
            grpo::kl_in_reward(exec, shape, grpo::kl{}, 0.1, reward, value, reward, out);
        });
        same_everywhere<float>(n, [&](const auto& exec, auto& out) {
            grpo::spread_to_tokens(exec, shape, per_sequence, out);
        }, 0);
        same_everywhere<float>(n, [&](const auto& exec, auto& out) { grpo::place_outcome(exec, shape, per_sequence, out); }, 0);
        same_everywhere<float>(n, [&](const auto& exec, auto& out) {
            grpo::teacher_advantage(exec, shape, reward, value, out);
        });
    };
    on(rows.shape());
    on(rows.masked());
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::discounted_returns(exec, grpo::time_major(29, 2).where(rows.mask), 0.9, reward, out);
    });
}

TEST_CASE("outcome and process supervision, and a token baseline") {
    const rows_of_any_length rows;
    const std::vector<std::int64_t> group_of{0, 2, 2, 6};
    const auto groups = grpo::ragged(grpo::view(group_of.data(), 4), 6);
    const auto reward = numbers<float>(rows.n, 7);
    const auto per_sequence = numbers<float>(6, 8);
    const std::vector<std::int64_t> offsets{0, 2, 2, 6, 6, 7, 9};
    const std::vector<std::int64_t> end{1, 2, 0, 5, 5, 16, 7, 3, 20};
    const auto step_reward = numbers<float>(9, 9);
    const grpo::reasoning_steps<float> steps{offsets, end, step_reward};
    std::vector<float> scratch(9);
    std::vector<float> second(rows.n);
    std::vector<float> third(rows.n);
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::process_supervision(exec, groups, rows.masked(), steps, scratch, out);
    });
    scratch.resize(6);
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::outcome_supervision(exec, groups, rows.masked(), per_sequence, scratch, out);
    });
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::reinforce_plus_plus_baseline(exec, groups, rows.masked(), per_sequence, scratch, out);
    }, 1e-5);
    for (const auto align : {grpo::token_alignment::position, grpo::token_alignment::active_tokens}) {
        const grpo::otb_inputs<float> in{.reward = reward, .logp_old = reward, .sum_probability_squared = reward};
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            grpo::optimal_token_baseline(exec, groups, rows.masked(), in, out, second, third, {.align = align});
        });
    }
}

TEST_CASE("several rewards, and A*-PO's loss") {
    const rows_of_any_length rows;
    const auto reward = numbers<double>(2 * rows.n, 10);
    const std::vector<double> weight{0.5, 2.0};
    std::vector<std::uint8_t> valid(2 * rows.n, 1);
    valid[3] = valid[3 + rows.n] = valid[30] = 0;
    const std::vector<std::int64_t> repeat(rows.n, 3);
    std::vector<double> scratch(rows.n);
    for (const bool all : {true, false}) {
        grpo::gdpo_inputs<double> in{.reward = reward, .weight = weight};
        if (!all) in.valid = valid;
        if (!all) in.repeat = repeat;
        same_everywhere<double>(
            rows.n, [&](const auto& exec, auto& out) { grpo::gdpo(exec, rows.shape(), in, scratch, out); }, 1e-12);
    }
    const auto advantage = numbers<double>(6, 11);
    std::vector<double> gradient(rows.n);
    const elsewhere<4> there;
    const auto now = numbers<double>(rows.n, 12);
    const auto ref = numbers<double>(rows.n, 13);
    const double expected = grpo::a_star_loss(rows.masked(), 0.1, now, ref, advantage, gradient);
    CHECK(*grpo::a_star_loss(there, rows.masked(), 0.1, now, ref, advantage, gradient) ==
          doctest::Approx(expected));
}

// The total on the host, wherever it was folded.
template <class Total>
Total value(const Total& total) { return total; }
template <class Total>
Total value(const Total* total) { return *total; }

TEST_CASE("rollout corrections") {
    const rows_of_any_length rows;
    const auto old = numbers<float>(rows.n, 14);
    auto rollout = numbers<float>(rows.n, 15);
    rollout[9] = std::nanf("");
    const auto batch = grpo::batch(rows.masked(), grpo::logp_old(old), grpo::logp_rollout(rollout));
    using grpo::correction_level;
    for (const auto& rule : {grpo::correction::tis(1.1), grpo::correction::tis(1.1).normalised(),
                             grpo::correction::sequence_mask(1.2), grpo::correction::seq_mask_tis(0.9, 1.2).normalised()}) {
        std::vector<double> sums;
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            const grpo::correction_result r = value(grpo::correction_weights(exec, batch, rule, out));
            sums.insert(sums.end(), {r.weight, r.weight_square, r.sequence_mean, static_cast<double>(r.outside)});
            CHECK(r.missing == 1);
        });
        const std::vector<double> expected(sums.begin(), sums.begin() + 4);
        CHECK(difference(std::vector<double>(sums.begin() + 4, sums.begin() + 8), expected, 1e-6) == "");
        CHECK(difference(std::vector<double>(sums.begin() + 8, sums.end()), expected, 1e-6) == "");
    }
    same_everywhere<float>(6, [&](const auto& exec, auto& out) {
        const auto rule = grpo::correction::tis(1.05, correction_level::geometric).normalised();
        (void)grpo::correction_weights_by_sequence(exec, batch, rule, out);
    });
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::divide_weights(exec, rows.masked(), 2.0, out);
    });
    using grpo::rejection_level;
    for (const auto level : {rejection_level::token, rejection_level::sequence_mean, rejection_level::sequence_max}) {
        std::vector<float> statistic(rows.n);
        std::vector<std::int64_t> rejected;
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) {
            const auto rule = grpo::rejection::k3(level, 0.05);
            const grpo::view to(statistic.data(), level == rejection_level::token ? std::int64_t{58} : std::int64_t{6});
            rejected.push_back(value(grpo::reject(exec, batch, rule, out, to)).rejected_tokens);
            rejected.push_back(value(grpo::reject(exec, batch, rule, out)).rejected_tokens);
        });
        CHECK(rejected == std::vector<std::int64_t>(6, rejected[0]));
    }
}

TEST_CASE("metrics of two engines, and of a critic") {
    const rows_of_any_length rows;
    const auto x = numbers<float>(rows.n, 16);
    const auto y = numbers<float>(rows.n, 17);
    const auto engines = grpo::batch(rows.masked(), grpo::logp_old(x), grpo::logp_rollout(y));
    const auto critic = grpo::batch(rows.masked(), grpo::values(x), grpo::returns(y));
    const auto expected = grpo::measure_mismatch(engines);
    const double correlation = grpo::measure_probability_fit(engines).correlation();
    const double explained = grpo::measure_value_fit(critic).explained_variance();
    const auto on = [&](const auto& exec) {
        const grpo::mismatch got = value(grpo::measure_mismatch(exec, engines));
        CHECK(got.kl == doctest::Approx(expected.kl));
        CHECK(got.largest_weight == expected.largest_weight);
        CHECK(got.smallest_weight == expected.smallest_weight);
        CHECK(got.tokens == expected.tokens);
        CHECK(got.perplexity_old == doctest::Approx(expected.perplexity_old));
        CHECK(value(grpo::measure_probability_fit(exec, engines)).correlation() == doctest::Approx(correlation));
        CHECK(value(grpo::measure_value_fit(exec, critic)).explained_variance() == doctest::Approx(explained));
    };
    on(lanes<4>{});
    on(elsewhere<4>{});
}

TEST_CASE("responses of a preference, and steps") {
    const rows_of_any_length rows;
    const auto x = numbers<float>(rows.n, 18);
    const auto y = numbers<float>(rows.n, 19);
    const auto slope = numbers<float>(6, 20);
    for (const auto how : {grpo::pooling::sum, grpo::pooling::mean}) {
        same_everywhere<float>(6, [&](const auto& exec, auto& out) { grpo::sequence_logp(exec, rows.masked(), x, out, how); });
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::spread(exec, rows.masked(), slope, out, how); });
    }
    same_everywhere<float>(6, [&](const auto& exec, auto& out) {
        grpo::wpo_weights(exec, rows.masked(), x, y, out);
        grpo::multiply_wpo_weights(exec, rows.masked(), y, x, out);
    });
    same_everywhere<float>(6, [&](const auto& exec, auto& out) { grpo::weighted_sequence_logp(exec, rows.masked(), x, y, out); });
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::weighted_spread(exec, rows.masked(), slope, y, out); });
    const auto logits = numbers<float>(2 * rows.n, 21);
    std::vector<double> losses;
    same_everywhere<float>(2 * rows.n, [&](const auto& exec, auto& out) {
        losses.push_back(value(grpo::step_loss(exec, rows.shape(), logits, y, 51.0, out)).loss(51.0));
    });
    CHECK(losses[1] == doctest::Approx(losses[0]));
    CHECK(losses[2] == doctest::Approx(losses[0]));
    const auto batch = grpo::batch(rows.masked(), grpo::logp(x), grpo::logp_old(y), grpo::advantage(y));
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::gradient_coefficient(exec, grpo::clipped{}, batch, grpo::d_logp(out));
    });
}

TEST_CASE("advantage rules of recipes") {
    const rows_of_any_length rows;
    const auto groups = grpo::padded(3, 2);
    const auto per_sequence = numbers<float>(6, 23);
    const auto x = numbers<float>(rows.n, 24);
    const auto y = numbers<float>(rows.n, 25);
    std::vector<float> returns(rows.n), reward_token(rows.n), baseline(rows.n), centred(6);
    using grpo::recipe::estimator;
    for (const auto kind : {estimator::group, estimator::returns, estimator::remax, estimator::gae, estimator::vapo, estimator::otb}) {
        grpo::recipe::advantage_rule rule{.kind = kind};
        rule.kl.beta = 0.1;
        const grpo::recipe::token_inputs<float> in{per_sequence, x, y, x, per_sequence, y};
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            rule.by_token(exec, groups, rows.masked(), in, {out, returns, centred, reward_token, baseline});
        }, 1e-5);
    }
    grpo::recipe::advantage_rule cut;
    cut.advantage_bound = 1.0;
    CHECK_THROWS_AS(cut.by_sequence(elsewhere<4>{}, groups, per_sequence, centred), grpo::error);
    CHECK_THROWS_AS(grpo::recipe::advantage_rule{.kind = estimator::gpg}.by_sequence(elsewhere<4>{}, groups, per_sequence, centred),
                    grpo::error);
}

TEST_CASE("errors of another memory, with nothing written") {
    const rows_of_any_length rows;
    const auto x = numbers<float>(rows.n, 22);
    std::vector<float> out(rows.n, 7.0f);
    elsewhere<4> there;
    const auto says = [](const auto& call) -> std::string {
        try {
            call();
        } catch (const grpo::error& e) {
            return e.what();
        }
        return "";
    };
    CHECK(says([&] { grpo::whiten(there, grpo::ragged(rows.cu), x, out); }) ==
          "grpo::whiten: cu_seqlens has 7 entries in a device's memory: give ragged() their last as well");
    CHECK(says([&] { grpo::group_normalised(there, rows.shape(), x, out, {.singleton = grpo::singleton_rule::error}); }) ==
          "grpo::group_normalised: options.singleton is error (2), but the sizes of 6 groups lie in another memory");
    const std::string host = " points into host memory, but device 0 is to read or write it";
    there.forbidden = x.data();
    CHECK(says([&] { grpo::whiten(there, rows.masked(), x, out); }) == "grpo::whiten: x" + host);
    CHECK(says([&] { (void)grpo::measure_value_fit(there, grpo::batch(rows.masked(), grpo::values(x), grpo::returns(out))); }) ==
          "grpo::measure_value_fit: value" + host);
    there.forbidden = rows.mask.data();
    CHECK(says([&] { grpo::discounted_returns(there, rows.masked(), 1.0, x, out); }) == "grpo::discounted_returns: mask" + host);
    there.forbidden = rows.cu.data();
    CHECK(says([&] { grpo::sequence_logp(there, rows.masked(), x, out); }) != "");
    CHECK(out == std::vector<float>(rows.n, 7.0f));
}

}  // namespace
