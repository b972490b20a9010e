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

// Groups of members of 0 to 2 tokens, for opo.
struct tokens_of_members {
    std::vector<std::uint8_t> mask;
    std::int64_t members;
    explicit tokens_of_members(std::size_t n) : mask(3 * n), members(static_cast<std::int64_t>(n)) {
        for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 5 == 0 || i % 7 == 3;
    }
    auto shape() const { return grpo::padded(members, 3).where(mask); }
};

TEST_CASE("relatives of the group's advantage") {
    const rows_of_any_length rows;
    auto reward = numbers<float>(rows.n, 31);
    for (std::size_t i = 0; i < rows.n; i += 4) reward[i] = 0;
    const tokens_of_members tokens(rows.n);
    const auto on = [&](const auto& groups) {
        for (const auto singleton : {grpo::singleton_rule::zero, grpo::singleton_rule::raw_reward}) {
            same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::dr_grpo(exec, groups, reward, out, singleton); });
            same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                grpo::rloo(exec, groups, reward, out, {.singleton = singleton, .batch_normalise = true});
            }, 1e-5);
            same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                grpo::gpg_advantage(exec, groups, reward, out, {.singleton = singleton, .norm = 2});
            });
            same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                grpo::opo(exec, groups, tokens.shape(), reward, out, singleton);
            });
            same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
                grpo::pass_at_k_advantage(exec, groups, reward, out, {.singleton = singleton});
            });
        }
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) { grpo::raw_reward(exec, groups, reward, out); }, 0);
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            out = reward;
            grpo::clip_advantage(exec, groups, out, -0.25, 0.125);
        }, 0);
    };
    on(rows.shape());
    on(rows.masked());
    std::vector<float> probability(rows.n);
    for (const auto kind : {grpo::pf_ppo_kind::power, grpo::pf_ppo_kind::max_min, grpo::pf_ppo_kind::max_random}) {
        same_everywhere<float>(2 * rows.n, [&](const auto& exec, auto& out) {
            const auto n = static_cast<std::int64_t>(rows.n);
            grpo::pf_ppo_weights(exec, reward, grpo::view(out.data(), n), grpo::view(out.data() + n, n), {.kind = kind, .power = 1.5});
        });
    }
}

TEST_CASE("rewards on their way to advantages, and masks of rows") {
    const rows_of_any_length rows;
    const auto reward = numbers<float>(rows.n, 32);
    const std::vector<float> length = [&] {
        auto x = numbers<float>(rows.n, 33);
        for (float& l : x) l = 100 + 40 * l;
        return x;
    }();
    std::vector<std::uint8_t> flag(rows.n);
    for (std::size_t i = 0; i < rows.n; i += 3) flag[i] = 1;
    const auto same = [&](const auto& f) { same_everywhere<float>(rows.n, f); };
    same([&](const auto& exec, auto& out) {
        grpo::overlong_penalty(exec, length, {.max_length = 110, .buffer = 20, .cap = false}, out);
    });
    same([&](const auto& exec, auto& out) { grpo::shape_rewards(exec, reward, grpo::reward_clip{.low = -0.25, .high = 0.125}, out); });
    same([&](const auto& exec, auto& out) { grpo::shape_rewards(exec, reward, grpo::linear_rescale{.to_high = 4}, out); });
    same([&](const auto& exec, auto& out) { grpo::shape_rewards(exec, reward, grpo::stop_properly{0.5}, flag, out); });
    same([&](const auto& exec, auto& out) { grpo::shape_rewards(exec, reward, grpo::missing_eos{}, flag, out); });
    auto scores = numbers<float>(2 * rows.n, 34);
    scores[3] = scores[7] = scores[rows.n + 7] = std::nanf("");
    const std::vector<double> weights{0.5, -2.0};
    std::vector<std::uint8_t> valid(rows.n);
    same_everywhere<float>(2 * rows.n, [&](const auto& exec, auto& out) {
        grpo::weighted_rewards(exec, scores, weights, grpo::view(out.data(), static_cast<std::int64_t>(rows.n)), valid);
        random_batch::arrive();
        for (std::size_t i = 0; i < rows.n; ++i) out[rows.n + i] = valid[i];
        CHECK(valid[7] == 0);
    });
    const std::vector<std::uint8_t> truncated{0, 0, 1, 0, 1, 0};
    const auto on = [&](const auto& shape) {
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) { grpo::mask_truncated(exec, shape, truncated, out); }, 0);
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) { grpo::expand_rows(exec, shape, truncated, out); }, 0);
    };
    on(rows.shape());
    on(rows.masked());
}

TEST_CASE("groups, samples and what is measured of them") {
    const rows_of_any_length rows;
    auto reward = numbers<float>(rows.n, 35);
    for (float& r : reward) r = r < 0.2f ? 0.0f : 1.0f;
    for (std::size_t i = 3; i < 20; ++i) reward[i] = i == 4 ? 0.0f : 1.0f;
    const auto on = [&](const auto& groups) {
        for (const auto& filter : {grpo::group_filter::nonzero_std(), grpo::group_filter::std_above(0.3),
                                   grpo::group_filter::mean_between(0.2, 0.9)}) {
            std::vector<std::int64_t> kept;
            same_everywhere<std::uint8_t>(6, [&](const auto& exec, auto& out) {
                const grpo::filter_result r = random_batch::arrived(grpo::select_groups(exec, groups, reward, filter, out));
                CHECK(r.considered == 6);
                kept.push_back(r.kept);
            }, 0);
            CHECK(kept == std::vector<std::int64_t>(kept.size(), kept[0]));
        }
        std::vector<std::int64_t> counts;
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) {
            const grpo::filter_result r = random_batch::arrived(grpo::select_samples(exec, groups, reward, out));
            counts.insert(counts.end(), {r.considered, r.kept});
        }, 0);
        for (std::size_t i = 2; i < counts.size(); ++i) CHECK(counts[i] == counts[i - 2]);
        const auto measured = [&](const auto& measure) {
            same_everywhere<double>(9, [&](const auto& exec, auto& out) {
                const grpo::metric_mean m = random_batch::arrived(measure(exec, grpo::view(out.data(), 6)));
                out[6] = m.sum;
                out[7] = static_cast<double>(m.groups);
                out[8] = static_cast<double>(m.skipped);
            }, 1e-12);
        };
        measured([&](const auto& exec, const auto& out) { return grpo::pass_at_k(exec, groups, reward, 3, out); });
        measured([&](const auto& exec, const auto& out) { return grpo::mean_at_n(exec, groups, reward, out); });
        for (const auto how : {grpo::draw::without_replacement, grpo::draw::with_replacement}) {
            measured([&](const auto& exec, const auto& out) { return grpo::best_of_n(exec, groups, reward, 2, how, out); });
            measured([&](const auto& exec, const auto& out) { return grpo::worst_of_n(exec, groups, reward, 2, how, out); });
        }
    };
    on(rows.shape());
    on(rows.masked());
}

// Of few dyadic values, so that no sum is rounded and many are equal.
template <class T>
std::vector<T> few_numbers(std::size_t n, unsigned seed) {
    auto x = numbers<T>(n, seed);
    for (T& v : x) v = static_cast<T>(std::floor(static_cast<double>(v) * 16) / 8);
    return x;
}

TEST_CASE("selections of tokens") {
    const rows_of_any_length rows;
    auto logp = few_numbers<float>(rows.n, 41);
    const auto old = few_numbers<float>(rows.n, 42);
    auto rollout = few_numbers<float>(rows.n, 43);
    const auto advantage = few_numbers<float>(6, 44);
    const auto entropy = few_numbers<float>(rows.n, 45);
    logp[8] = std::numeric_limits<float>::infinity();
    rollout[9] = std::nanf("");
    const std::vector<std::uint8_t> none(rows.n, 0);
    const auto picked = [&](const auto& select) {
        const auto on = [&](const auto& shape) {
            same_everywhere<double>(rows.n + 5, [&](const auto& exec, auto& out) {
                const auto batch = grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_rollout(rollout),
                                               grpo::entropy(entropy), grpo::advantage(grpo::by_sequence(advantage)));
                std::vector<std::uint8_t> mask(rows.n, 9);
                const grpo::selection_result r = random_batch::arrived(select(exec, batch, mask));
                std::copy(mask.begin(), mask.end(), out.begin());
                const double told[] = {static_cast<double>(r.tokens), static_cast<double>(r.selected), static_cast<double>(r.nonfinite),
                                       static_cast<double>(r.first_nonfinite), r.threshold};
                std::copy(told, told + 5, out.end() - 5);
            }, 0);
        };
        on(rows.masked());
        on(rows.shape().where(none));
    };
    for (const double share : {0.0, 0.3, 1.0}) {
        picked([&](const auto& exec, const auto& batch, auto& mask) {
            return grpo::select_clip_cov(exec, batch, grpo::clipped{}, {share, -1.0, 0.5}, mask);
        });
        picked([&](const auto& exec, const auto& batch, auto& mask) { return grpo::select_kl_cov(exec, batch, share, mask); });
        picked([&](const auto& exec, const auto& batch, auto& mask) { return grpo::select_top_entropy(exec, batch, share, mask); });
        picked([&](const auto& exec, const auto& batch, auto& mask) { return grpo::select_m2po(exec, batch, share, mask); });
    }
    // All tokens in one row.
    same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& mask) {
        const auto all = grpo::padded(1, static_cast<std::int64_t>(rows.n)).where(rows.mask);
        const auto r = random_batch::arrived(grpo::select_top_entropy(exec, grpo::batch(all, grpo::entropy(entropy)), 0.2, mask));
        CHECK(r.tokens == std::count(rows.mask.begin(), rows.mask.end(), 1));
    }, 0);
}

TEST_CASE("R1.41 outputs over inputs") {
    const rows_of_any_length rows;
    const auto reward = numbers<float>(rows.n, 36);
    const auto other = numbers<float>(rows.n, 37);
    const tokens_of_members tokens(rows.n);
    const auto groups = rows.masked();
    const auto in_place = [&](const auto& f) {
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            out = reward;
            f(exec, out);
        }, 1e-5);
    };
    in_place([&](const auto& exec, auto& x) { grpo::group_normalised(exec, groups, x, x); });
    in_place([&](const auto& exec, auto& x) { grpo::group_normalised(exec, groups, x, x, {.scale = grpo::group_scale::batch}); });
    in_place([&](const auto& exec, auto& x) { grpo::gpg_advantage(exec, groups, x, x); });
    in_place([&](const auto& exec, auto& x) { grpo::opo(exec, groups, tokens.shape(), x, x); });
    in_place([&](const auto& exec, auto& x) { grpo::pass_at_k_advantage(exec, groups, x, x); });
    in_place([&](const auto& exec, auto& x) { grpo::whiten(exec, groups, x, x); });
    in_place([&](const auto& exec, auto& x) { grpo::kl_in_reward(exec, groups, grpo::kl{}, 0.1, x, other, reward, x); });
    in_place([&](const auto& exec, auto& x) {
        (void)grpo::correction_weights(exec, grpo::batch(groups, grpo::logp_old(x), grpo::logp_rollout(other)),
                                       grpo::correction::tis(1.1).normalised(), x);
    });
    for (const auto level : {grpo::rejection_level::token, grpo::rejection_level::sequence_mean}) {
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& mask) {
            mask = rows.mask;
            const auto batch = grpo::batch(rows.shape().where(mask), grpo::logp_old(reward), grpo::logp_rollout(other));
            (void)grpo::reject(exec, batch, grpo::rejection::k3(level, 0.05), mask);
        }, 0);
    }
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
    // Row k of one shape and of the other is a pair.
    const std::vector<std::int64_t> other{0, 5, 9, 20, 21, 40, 58};
    const auto rejected = grpo::ragged(grpo::view(other.data(), 7), 58);
    const auto n = static_cast<std::int64_t>(rows.n);
    same_everywhere<float>(rows.n + 58, [&](const auto& exec, auto& out) {
        grpo::ld_weights(exec, rows.masked(), rejected, 0.25, grpo::view(out.data(), n), grpo::view(out.data() + n, 58));
    }, 0);
    std::vector<std::int32_t> labels(rows.n, -100);
    for (std::size_t i = 0; i < rows.n; i += 4) labels[i] = i % 3 == 0 ? 1 : 0;
    for (const bool last_only : {false, true}) {
        std::vector<std::int64_t> steps;
        same_everywhere<std::uint8_t>(rows.n, [&](const auto& exec, auto& out) {
            steps.push_back(random_batch::arrived(grpo::mark_steps(exec, rows.masked(), labels, {.last_only = last_only}, out)));
        }, 0);
        CHECK(steps == std::vector<std::int64_t>(steps.size(), steps[0]));
    }
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
