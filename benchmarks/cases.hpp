// Inputs of the benchmarks and their answers in double precision, against which every contestant is checked
// before its time counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace bench {

enum class masking { full, ragged };

/// Moves a ratio that single precision cannot place on either side of a clip bound; among a million random tokens a few
/// sit there, and their gradient is a matter of rounding.
inline float off_kink(float logp, float logp_old) {
    const float log_ratio = logp - logp_old;
    for (const float bound : {0.8f, 1.2f, 1.28f}) {
        if (std::abs(log_ratio - std::log(bound)) < 1e-5f) return logp_old - 1e-3f;
    }
    return logp_old;
}

/// A padded batch [rows, width]. `ragged`: lengths uniform in [width/2, width], and one active token in 16 is a hole.
struct batch {
    std::int64_t rows = 0;
    std::int64_t width = 0;
    std::vector<float> logp, logp_old, logp_ref, reward, value, advantage;
    std::vector<std::uint8_t> mask;
    std::int64_t active = 0;

    std::int64_t tokens() const { return rows * width; }
};

inline batch make_batch(std::int64_t rows, std::int64_t width, masking kind, unsigned seed = 7) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    batch b{rows, width, {}, {}, {}, {}, {}, {}, {}, 0};
    const auto n = static_cast<std::size_t>(b.tokens());
    for (auto* v : {&b.logp, &b.logp_old, &b.logp_ref, &b.reward, &b.value}) v->resize(n);
    b.mask.resize(n);
    for (std::int64_t r = 0; r < rows; ++r) {
        b.advantage.push_back(normal(rng));
        std::uniform_int_distribution<std::int64_t> length(width / 2, width);
        const std::int64_t active = kind == masking::full ? width : length(rng);
        for (std::int64_t t = 0; t < width; ++t) {
            const auto i = static_cast<std::size_t>(r * width + t);
            b.logp[i] = -std::abs(normal(rng));
            b.logp_old[i] = off_kink(b.logp[i], b.logp[i] + 0.15f * normal(rng));
            b.logp_ref[i] = b.logp[i] + 0.20f * normal(rng);
            b.reward[i] = 0.1f * normal(rng);
            b.value[i] = normal(rng);
            b.mask[i] = static_cast<std::uint8_t>(t < active && (kind == masking::full || rng() % 16 != 0));
            b.active += b.mask[i];
        }
    }
    return b;
}

struct answer {
    double value = 0;
    std::vector<double> gradient;
};

enum class weighing { token_mean, sequence_mean, constant_length };

inline std::int64_t active_in_row(const batch& b, std::int64_t row) {
    const auto begin = b.mask.begin() + row * b.width;
    return std::count(begin, begin + b.width, std::uint8_t{1});
}

/// What each row's tokens are multiplied by, the denominator included.
inline std::vector<double> row_scales(const batch& b, weighing how) {
    std::vector<double> scales;
    for (std::int64_t r = 0; r < b.rows; ++r) {
        const double of_row = static_cast<double>(b.rows) * static_cast<double>(active_in_row(b, r));
        scales.push_back(how == weighing::token_mean      ? 1.0 / static_cast<double>(b.active)
                         : how == weighing::sequence_mean ? 1.0 / of_row
                                                          : 1.0 / static_cast<double>(b.tokens()));
    }
    return scales;
}

struct loss_and_slope {
    double loss;
    double slope;
};

/// Sums token(row, i) over the active tokens.
template <class Token>
answer token_answer(const batch& b, weighing how, const Token& token) {
    answer out{0, std::vector<double>(static_cast<std::size_t>(b.tokens()), 0.0)};
    const std::vector<double> scales = row_scales(b, how);
    for (std::size_t i = 0; i < out.gradient.size(); ++i) {
        if (!b.mask[i]) continue;
        const std::size_t row = i / static_cast<std::size_t>(b.width);
        const loss_and_slope x = token(row, i);
        out.value += scales[row] * x.loss;
        out.gradient[i] = scales[row] * x.slope;
    }
    return out;
}

/// max(-A r, -A clip(r)); a tie takes the unclipped side, with the derivative -A r by log r.
inline loss_and_slope clipped_answer(double advantage, double ratio, double low, double high) {
    const double plain = advantage * ratio;
    const double bounded = advantage * std::clamp(ratio, 1.0 - low, 1.0 + high);
    return {-std::min(plain, bounded), plain <= bounded ? -plain : 0.0};
}

/// Clip(low, high) + beta * k3.
inline answer policy_answer(const batch& b, double low, double high, double beta, weighing how = weighing::token_mean) {
    return token_answer(b, how, [&](std::size_t row, std::size_t i) {
        const double ratio = std::exp(static_cast<double>(b.logp[i]) - b.logp_old[i]);
        const double d = static_cast<double>(b.logp_ref[i]) - b.logp[i];
        const loss_and_slope clip = clipped_answer(b.advantage[row], ratio, low, high);
        return loss_and_slope{clip.loss + beta * (std::expm1(d) - d), clip.slope - beta * std::expm1(d)};
    });
}

/// -clip(r) A logp, the weight a constant (arXiv 2506.13585, eq. 4).
inline answer cispo_answer(const batch& b, double low, double high, weighing how) {
    return token_answer(b, how, [&](std::size_t row, std::size_t i) {
        const double ratio = std::exp(static_cast<double>(b.logp[i]) - b.logp_old[i]);
        const double slope = -std::clamp(ratio, 1.0 - low, 1.0 + high) * b.advantage[row];
        return loss_and_slope{slope * b.logp[i], slope};
    });
}

/// The clipped surrogate of the sequence's geometric mean ratio (arXiv 2507.18071, eq. 5 and 7), mean over sequences.
/// Each of its n tokens has 1/n of the derivative, n times over: once for every token's copy of the loss.
inline answer gspo_answer(const batch& b, double low, double high) {
    std::vector<double> mean;
    for (std::int64_t r = 0; r < b.rows; ++r) {
        double sum = 0;
        for (std::int64_t t = 0; t < b.width; ++t) {
            const auto i = static_cast<std::size_t>(r * b.width + t);
            if (b.mask[i]) sum += static_cast<double>(b.logp[i]) - b.logp_old[i];
        }
        mean.push_back(sum / static_cast<double>(active_in_row(b, r)));
    }
    return token_answer(b, weighing::sequence_mean, [&](std::size_t row, std::size_t) {
        return clipped_answer(b.advantage[row], std::exp(mean[row]), low, high);
    });
}

/// GAE (arXiv 1506.02438 eq. 16) in which a masked token is stepped over: it neither discounts nor breaks the chain.
inline std::vector<double> gae_answer(const batch& b, double gamma, double lambda) {
    std::vector<double> out(static_cast<std::size_t>(b.tokens()));
    for (std::int64_t r = 0; r < b.rows; ++r) {
        double next = 0, carry = 0;
        for (std::int64_t t = b.width; t-- > 0;) {
            const auto i = static_cast<std::size_t>(r * b.width + t);
            if (b.mask[i]) {
                carry = b.reward[i] + gamma * next - b.value[i] + gamma * lambda * carry;
                next = b.value[i];
            }
            out[i] = carry;
        }
    }
    return out;
}

/// (r - mean) / (std + eps) per group of consecutive rewards, ddof = 1.
inline std::vector<double> group_answer(const std::vector<float>& reward, std::size_t size, double eps) {
    std::vector<double> out(reward.size());
    for (std::size_t g = 0; g < reward.size(); g += size) {
        double mean = 0, square = 0;
        for (std::size_t i = g; i < g + size; ++i) mean += reward[i] / static_cast<double>(size);
        for (std::size_t i = g; i < g + size; ++i) square += (reward[i] - mean) * (reward[i] - mean);
        const double deviation = std::sqrt(square / static_cast<double>(size - 1));
        for (std::size_t i = g; i < g + size; ++i) out[i] = (reward[i] - mean) / (deviation + eps);
    }
    return out;
}

/// Largest |a - b| over the entries selected, relative to the largest |b|.
template <class T>
double relative_error(const T* a, const std::vector<double>& b, const std::vector<std::uint8_t>* only = nullptr) {
    double worst = 0, scale = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        if (only && !(*only)[i]) continue;
        const double gap = std::abs(static_cast<double>(a[i]) - b[i]);
        worst = gap > worst || std::isnan(gap) ? gap : worst;
        scale = std::max(scale, std::abs(b[i]));
        if (std::isnan(gap)) break;
    }
    return scale > 0 ? worst / scale : worst;
}

}  // namespace bench
