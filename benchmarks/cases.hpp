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

/// Moves a ratio that single precision cannot place on either side of the clip bounds 0.8 and 1.2; among a million
/// random tokens a few sit there, and their gradient is a matter of rounding.
inline float off_kink(float logp, float logp_old) {
    const float log_ratio = logp - logp_old;
    const bool close = std::abs(log_ratio - std::log(1.2f)) < 1e-5f || std::abs(log_ratio - std::log(0.8f)) < 1e-5f;
    return close ? logp_old - 1e-3f : logp_old;
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

/// Clip(low, high) + beta * k3, token mean.
inline answer policy_answer(const batch& b, double low, double high, double beta) {
    answer out{0, std::vector<double>(static_cast<std::size_t>(b.tokens()), 0.0)};
    const double scale = 1.0 / static_cast<double>(b.active);
    for (std::size_t i = 0; i < out.gradient.size(); ++i) {
        if (!b.mask[i]) continue;
        const double a = b.advantage[i / static_cast<std::size_t>(b.width)];
        const double ratio = std::exp(static_cast<double>(b.logp[i]) - b.logp_old[i]);
        const double d = static_cast<double>(b.logp_ref[i]) - b.logp[i];
        const double plain = a * ratio;
        const double bounded = a * std::clamp(ratio, 1.0 - low, 1.0 + high);
        out.value += scale * (beta * (std::expm1(d) - d) - std::min(plain, bounded));
        out.gradient[i] = scale * (-beta * std::expm1(d) - (plain <= bounded ? plain : 0.0));
    }
    return out;
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
