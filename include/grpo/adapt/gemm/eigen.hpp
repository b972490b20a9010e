// Matrix products by Eigen. Component `eigen` (grpo::eigen).
#pragma once

#include <cstdint>
#include <type_traits>

#include <Eigen/Core>

#include <grpo/detail/check.hpp>
#include <grpo/head/gemm.hpp>

namespace grpo::inline v0 {

// float × float -> float and double × double -> double. Compile with optimisation and for the target's vectors: Eigen's
// speed is that of the including file's flags. With OpenMP Eigen uses threads of its own: define EIGEN_DONT_PARALLELIZE
// where an executor's threads call it. Errors: negative sizes, a stride below a row's length, null pointers. O(m n k).
struct eigen_gemm {
    template <detail::gemm_compute T>
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, operand<T> a, operand<T> b,
                  std::type_identity_t<T> beta, T* c, std::int64_t stride_c) const {
        detail::require(detail::check_product("eigen_gemm", m, n, k, a, b, c, stride_c));
        const auto x = in_memory(a, m, k);
        const auto y = in_memory(b, k, n);
        Eigen::Map<matrix<T>, 0, Eigen::OuterStride<>> to(c, m, n, Eigen::OuterStride<>(stride_c));
        if (a.transposed && b.transposed) {
            store(x.transpose() * y.transpose(), beta, to);
        } else if (a.transposed) {
            store(x.transpose() * y, beta, to);
        } else if (b.transposed) {
            store(x * y.transpose(), beta, to);
        } else {
            store(x * y, beta, to);
        }
    }

private:
    template <class T>
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    // The rows × columns operand as it lies in memory.
    template <class T>
    static auto in_memory(const operand<T>& x, std::int64_t rows, std::int64_t columns) {
        return Eigen::Map<const matrix<T>, 0, Eigen::OuterStride<>>(
            x.data, x.transposed ? columns : rows, x.transposed ? rows : columns, Eigen::OuterStride<>(x.stride));
    }

    template <class Product, class T, class To>
    static void store(const Product& product, T beta, To& to) {
        if (beta == T(0)) {
            to.noalias() = product;
            return;
        }
        if (beta != T(1)) to *= beta;
        to.noalias() += product;
    }
};

}  // namespace grpo::inline v0
