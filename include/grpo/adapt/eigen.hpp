// Eigen vectors and matrices as grpo's arrays and shapes, without a copy.
//
//   Eigen::Matrix<float, -1, -1, Eigen::RowMajor> logp(B, T);      one sequence per row
//   grpo::batch(grpo::padded_of(logp), grpo::logp(grpo::view_of(logp)), ...)
//
// A row's entries must be neighbours in memory. What is not so is refused: a column-major matrix at compile time (pass
// its transpose() if its columns are the sequences), an inner stride other than 1 by a grpo::error. grpo::view itself
// takes anything with data() and size() and cannot see strides: go through view_of.
#pragma once

#include <cstdint>
#include <type_traits>

#include <Eigen/Core>

#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

template <class Derived>
void derives_from_dense(const Eigen::DenseBase<Derived>&);
template <class X>
concept eigen_dense = requires(const std::remove_cvref_t<X>& x) { derives_from_dense(x); };

// Strides and shape of X, checked.
template <class X>
void check_eigen(const X& x, const char* function) {
    static_assert((static_cast<unsigned>(X::Flags) & Eigen::DirectAccessBit) != 0,
                  "grpo: this Eigen expression has no memory of its own: assign it to a matrix first");
    static_assert(X::IsVectorAtCompileTime || X::IsRowMajor,
                  "grpo: this Eigen matrix is column-major, so its rows are not contiguous: use Eigen::RowMajor, or pass "
                  "its transpose() if its columns are the sequences");
    if (x.innerSize() > 1 && x.innerStride() != 1) {
        raise(complain(function, "the Eigen object", "has inner stride %lld, but its entries must be neighbours (stride "
                       "%lld): copy it", static_cast<long long>(x.innerStride()), 1LL));
    }
}

// A temporary that owns its memory would leave the view dangling; a temporary Map, Block or transpose() does not.
template <class X>
concept outlives_the_call =
    std::is_lvalue_reference_v<X> ||
    !std::is_base_of_v<Eigen::PlainObjectBase<std::remove_cvref_t<X>>, std::remove_cvref_t<X>>;

}  // namespace detail

// All entries from the first to the last, gaps between rows included: as many as padded_of(x).extent().
template <detail::eigen_dense X>
auto view_of(X&& x) {
    static_assert(detail::outlives_the_call<X>, "grpo: view_of() of a temporary matrix would dangle: give it a name");
    detail::check_eigen<std::remove_cvref_t<X>>(x, "view_of");
    const bool one_row = std::remove_cvref_t<X>::IsVectorAtCompileTime;
    const std::int64_t rows = one_row ? 1 : x.rows();
    const std::int64_t width = one_row ? x.size() : x.cols();
    const std::int64_t stride = one_row ? width : x.outerStride();
    return view<std::remove_reference_t<decltype(*x.data())>>(x.data(), rows == 0 ? 0 : (rows - 1) * stride + width);
}

// One row of the shape for each row of a matrix; the entries of a vector are one row.
template <detail::eigen_dense X>
padded padded_of(const X& x) {
    detail::check_eigen(x, "padded_of");
    if constexpr (X::IsVectorAtCompileTime) return padded(1, x.size());
    else return padded(x.rows(), x.cols(), x.outerStride());
}

}  // namespace grpo::inline v0
