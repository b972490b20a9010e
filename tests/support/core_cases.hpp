// What is not a loss, on other executors than serial: its results. Whoever includes this says which, before:
//   template <class F> void on_each_executor(F&& f);   f(executor); what it returns is called once the work is done
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/random_batch.hpp>

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

// Rows of lengths 3, 0, 17, 1, 8, 29, with holes; or two of them longer.
int stretch = 1;
struct rows_of_any_length {
    std::vector<std::int64_t> cu{0, 3, 3, 20, 21, 29, 58};
    std::size_t n = 58;
    std::vector<std::uint8_t> mask;

    rows_of_any_length() {
        for (std::size_t k = 3; k < cu.size(); ++k) cu[k] += 17 * (stretch - 1);
        cu.back() += 29 * (stretch - 1);
        n = static_cast<std::size_t>(cu.back());
        mask.assign(n, 1);
        for (const std::size_t hole : {1u, 5u, 6u, 19u, 20u, 33u, 57u}) mask[hole] = 0;
        for (std::size_t hole = 91; hole < n; hole += 17) mask[hole] = 0;
    }
    auto shape() const { return grpo::ragged(grpo::view(cu.data(), 7), static_cast<std::int64_t>(n)); }
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
    if (stretch > 1) tolerance *= 50;  // thousands of floats added up in another order
    std::vector<T> expected(n, T(7));
    f(grpo::serial{}, expected);
    std::vector<T> out;
    on_each_executor([&](const auto& exec) {
        out.assign(n, T(7));
        f(exec, out);
        return [&] { CHECK(difference(out, expected, tolerance) == ""); };
    });
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
    auto reward = numbers<float>(rows.n, 4);
    auto value = numbers<float>(rows.n, 5);
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
            out = reward;
            grpo::discounted_returns(exec, shape, 0.9, out, out);
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
    for (std::size_t i = 0; i < n; ++i) {
        if (rows.mask[i] == 0) reward[i] = value[i] = std::nanf("");  // is not read
    }
    on(rows.masked());
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::discounted_returns(exec, grpo::time_major(static_cast<std::int64_t>(rows.n / 2), 2).where(rows.mask), 0.9, reward, out);
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
            const grpo::correction_result r = random_batch::arrived(grpo::correction_weights(exec, batch, rule, out));
            sums.insert(sums.end(), {r.weight, r.weight_square, r.sequence_mean, static_cast<double>(r.outside)});
            CHECK(r.missing == 1);
        });
        const std::vector<double> expected(sums.begin(), sums.begin() + 4);
        for (auto one = sums.begin() + 4; one != sums.end(); one += 4) {
            CHECK(difference(std::vector<double>(one, one + 4), expected, 1e-6) == "");
        }
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
        const auto rule = grpo::rejection::k3(level, 0.05);
        std::vector<std::uint8_t> keep(rows.n);
        std::vector<std::int64_t> rejected;
        same_everywhere<float>(2 * rows.n, [&](const auto& exec, auto& out) {  // the statistic, then what is kept
            const grpo::view to(out.data(), level == rejection_level::token ? static_cast<std::int64_t>(rows.n) : std::int64_t{6});
            rejected.push_back(random_batch::arrived(grpo::reject(exec, batch, rule, keep, to)).rejected_tokens);
            for (std::size_t i = 0; i < rows.n; ++i) out[rows.n + i] = keep[i];
        });
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) {
            rejected.push_back(random_batch::arrived(grpo::reject(exec, batch, rule, out)).rejected_tokens);
        });
        CHECK(rejected == std::vector<std::int64_t>(rejected.size(), rejected[0]));
    }
}

TEST_CASE("metrics of two engines, and of a critic") {
    const rows_of_any_length rows;
    const auto old = numbers<float>(rows.n, 16);
    auto rollout = numbers<float>(rows.n, 17);
    rollout[9] = std::nanf("");
    rollout[24] = rollout[27] = -std::numeric_limits<float>::infinity();
    const auto engines = grpo::batch(rows.masked(), grpo::logp_old(old), grpo::logp_rollout(rollout));
    const auto critic = grpo::batch(rows.masked(), grpo::values(old), grpo::returns(rollout));
    const auto measured = [&](const auto& exec) {
        return random_batch::arrived(grpo::measure_mismatch(exec, engines, {.low = 0.8, .high = 1.3}));
    };
    same_everywhere<double>(12, [&](const auto& exec, auto& out) {
        const grpo::mismatch m = measured(exec);
        out = {m.kl, m.k3, m.weight, m.weight_square, m.absolute_log, m.error, m.perplexity_old, m.perplexity_rollout,
               m.log_perplexity_ratio, m.sequence_weight_square, m.smallest_weight, m.largest_weight};
    });
    same_everywhere<double>(8, [&](const auto& exec, auto& out) {
        const grpo::mismatch m = measured(exec);
        out = {m.largest_absolute_log};
        for (const std::int64_t n : {m.tokens, m.sequences, m.missing, m.nonfinite, m.first_nonfinite, m.outside_low, m.outside_high}) {
            out.push_back(static_cast<double>(n));
        }
    }, 0);
    same_everywhere<double>(6, [&](const auto& exec, auto& out) {
        const grpo::probability_fit p = random_batch::arrived(grpo::measure_probability_fit(exec, engines));
        const grpo::value_fit v = random_batch::arrived(grpo::measure_value_fit(exec, critic));
        out = {p.correlation(), static_cast<double>(p.missing), static_cast<double>(p.nonfinite), v.explained_variance(),
               static_cast<double>(v.nonfinite), v.of.n};
    });
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
        losses.push_back(random_batch::arrived(grpo::step_loss(exec, rows.shape(), logits, y, 51.0, out)).loss(51.0));
    });
    for (const double loss : losses) CHECK(loss == doctest::Approx(losses[0]));
    const auto batch = grpo::batch(rows.masked(), grpo::logp(x), grpo::logp_old(y), grpo::advantage(y));
    same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
        grpo::gradient_coefficient(exec, grpo::clipped{}, batch, grpo::d_logp(out));
    });
}

}  // namespace
