// Means with their uncertainty.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include <fmt/format.h>
#include <grpo/fold.hpp>

#include "random.hpp"

namespace support {

struct interval {
    double low = 0;
    double high = 0;
};

inline constexpr double normal_quantile_95 = 1.959963984540054;  // of 0.975: 95 % lie between minus and plus it

struct mean_and_deviation {
    std::int64_t n = 0;
    double mean = 0;
    double deviation = 0;  // of the sample, divisor n - 1; 0 for fewer than two
};

inline mean_and_deviation summary(std::span<const double> x) {
    grpo::moments::state<double> s;
    for (const double value : x) grpo::moments::add(s, value);
    return {static_cast<std::int64_t>(x.size()), s.mean, std::sqrt(grpo::moments::variance(s, 1))};
}

// 95 % interval of a probability by `successes` of n trials (Wilson, 1927).
inline interval wilson(std::int64_t successes, std::int64_t n) {
    if (n <= 0 || successes < 0 || successes > n)
        throw std::invalid_argument(fmt::format("wilson: {} successes of {} trials", successes, n));
    const double z2 = normal_quantile_95 * normal_quantile_95;
    const auto trials = static_cast<double>(n);
    const double p = static_cast<double>(successes) / trials;
    const double middle = (p + z2 / (2 * trials)) / (1 + z2 / trials);
    const double half =
        normal_quantile_95 / (1 + z2 / trials) * std::sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials));
    return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

// 95 % interval of a mean over problems, by drawing as many of them with replacement again and again (the percentile
// bootstrap of Efron, 1979). The same numbers give the same interval.
inline interval bootstrap(std::span<const double> x, int resamples = 2000, std::uint64_t seed = 1) {
    if (x.empty()) throw std::invalid_argument("bootstrap: there are no values");
    choices random(seed);
    std::vector<double> means(static_cast<std::size_t>(resamples));
    const auto last = static_cast<std::int64_t>(x.size()) - 1;
    for (double& mean : means) {
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); ++i) sum += x[static_cast<std::size_t>(random.integer(0, last))];
        mean = sum / static_cast<double>(x.size());
    }
    std::sort(means.begin(), means.end());
    const auto quantile = [&](double q) {
        const double at = q * static_cast<double>(means.size() - 1);
        const auto below = static_cast<std::size_t>(at);
        const auto above = std::min(below + 1, means.size() - 1);
        return std::lerp(means[below], means[above], at - static_cast<double>(below));
    };
    return {quantile(0.025), quantile(0.975)};
}

struct difference {
    double mean = 0;
    interval within;  // 95 %
};

// after - before of the same problems, with the deviation of the differences: what both have in common drops out.
inline difference paired_difference(std::span<const double> before, std::span<const double> after) {
    if (before.size() != after.size() || before.empty())
        throw std::invalid_argument(
            fmt::format("paired_difference: {} values before and {} after", before.size(), after.size()));
    std::vector<double> d(before.size());
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = after[i] - before[i];
    const mean_and_deviation s = summary(d);
    const double half = normal_quantile_95 * s.deviation / std::sqrt(static_cast<double>(s.n));
    return {s.mean, {s.mean - half, s.mean + half}};
}

}  // namespace support
