// Products of the CPU that are also written in 16 bits, as cublas_gemm's: summed in float, then rounded.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include <grpo/head/gemm.hpp>

struct rounding_gemm {
    template <class T, class C>
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, grpo::operand<T> a, grpo::operand<T> b, grpo::gemm_scale<C> beta,
                  C* c, std::int64_t stride) const {
        if constexpr (sizeof(C) > 2) {
            grpo::plain_gemm{}.multiply(m, n, k, a, b, beta, c, stride);
        } else {
            if (beta != 0) throw std::logic_error("rounding_gemm adds nothing to 16 bits");
            std::vector<float> wide(static_cast<std::size_t>(m * n));
            grpo::plain_gemm{}.multiply(m, n, k, a, b, 0, wide.data(), n);
            for (std::int64_t i = 0; i < m * n; ++i) c[i / n * stride + i % n] = C(wide[static_cast<std::size_t>(i)]);
        }
    }
};
