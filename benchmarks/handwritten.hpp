// The yardstick: what a careful programmer would write by hand for one fixed loss, without the library.
#pragma once

#include <cmath>
#include <cstdint>

namespace handwritten {

struct clip_k3 {
    float low = 0.2f;
    float high = 0.2f;
    float beta = 0.04f;
};

/// Clipped surrogate (arXiv 1707.06347 eq. 7) plus beta * k3 (arXiv 2402.03300 eq. 4), token mean over
/// `denominator` tokens, rows of `width` tokens with one advantage each. Writes d loss / d logp, 0 where masked.
/// Single precision per token, the loss summed in double; a tie takes the unclipped side.
inline double token_loss(std::int64_t rows, std::int64_t width, const float* logp, const float* logp_old,
                         const float* logp_ref, const float* advantage, const std::uint8_t* mask, double denominator,
                         clip_k3 p, float* gradient) {
    const float scale = static_cast<float>(1.0 / denominator);
    const float floor = 1.0f - p.low;
    const float ceiling = 1.0f + p.high;
    double loss = 0.0;
    for (std::int64_t b = 0; b < rows; ++b) {
        const float a = advantage[b];
        const std::int64_t end = (b + 1) * width;
        for (std::int64_t i = b * width; i < end; ++i) {
            if (mask[i] == 0) {
                gradient[i] = 0.0f;
                continue;
            }
            const float x = logp[i];
            const float ratio = std::exp(x - logp_old[i]);
            const float clipped = ratio < floor ? floor : (ratio > ceiling ? ceiling : ratio);
            const float d = logp_ref[i] - x;
            const float e = std::expm1(d);
            const float plain = a * ratio;
            const float bounded = a * clipped;
            const bool inside = plain <= bounded;
            loss += static_cast<double>(p.beta * (e - d) - (inside ? plain : bounded));
            gradient[i] = scale * (-p.beta * e - (inside ? plain : 0.0f));
        }
    }
    return loss / denominator;
}

}  // namespace handwritten
