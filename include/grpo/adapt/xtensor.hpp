// xtensor's arrays and views as grpo's arrays and shapes, without a copy.
//
//   xt::xtensor<float, 2> logp({B, T});
//   grpo::batch(grpo::padded_of(logp), grpo::logp(grpo::view_of(logp)), ...)
//
// One or two dimensions; a row's entries must be neighbours in memory, else grpo::error. xtensor up to 0.25 (all headers
// in one folder) and from 0.26 (several folders).
#pragma once

#include <cstdint>
#include <type_traits>

#if __has_include(<xtensor/containers/xtensor.hpp>)
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xtensor.hpp>
#endif

#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

template <class X>
concept xtensor_dense = xt::is_xexpression<std::remove_cvref_t<X>>::value && requires(X& x) {
    x.data();
    x.data_offset();
    x.strides();
    x.shape();
};

// The rows of an array with one or two dimensions. xtensor writes stride 0 where there is one entry.
template <class X>
padded rows_of_xtensor(const X& x, const char* function) {
    const long long dimension = static_cast<long long>(x.dimension());
    if (dimension != 1 && dimension != 2) {
        raise(complain(function, "the xtensor array", "has %lld dimensions, but must have one, or %lld (sequences, positions)",
                       dimension, 2LL));
    }
    const std::size_t last = x.dimension() - 1;
    const std::int64_t width = static_cast<std::int64_t>(x.shape()[last]);
    const std::int64_t inner = static_cast<std::int64_t>(x.strides()[last]);
    if (width > 1 && inner != 1) {
        raise(complain(function, "the xtensor array", "has stride %lld between the entries of a row, but they must be "
                       "neighbours (stride %lld): copy it", static_cast<long long>(inner), 1LL));
    }
    if (dimension == 1) return padded(1, width);
    const std::int64_t rows = static_cast<std::int64_t>(x.shape()[0]);
    const std::int64_t stride = static_cast<std::int64_t>(x.strides()[0]);
    if (rows > 1 && stride < width) {
        raise(complain(function, "the xtensor array", "has stride %lld between rows of %lld entries: broadcast or reversed "
                       "rows must be copied", static_cast<long long>(stride), static_cast<long long>(width)));
    }
    return padded(rows, width, rows > 1 ? stride : width);
}

}  // namespace detail

// All entries from the first to the last, gaps between rows included: as many as padded_of(x).extent().
template <detail::xtensor_dense X>
auto view_of(X&& x) {
    static_assert(std::is_lvalue_reference_v<X>, "grpo: view_of() of a temporary array would dangle: give it a name");
    const std::int64_t size = detail::rows_of_xtensor(x, "view_of").extent();
    return view<std::remove_reference_t<decltype(*x.data())>>(x.data() + x.data_offset(), size);
}

// One row of the shape for each row of a matrix; the entries of a vector are one row.
template <detail::xtensor_dense X>
padded padded_of(const X& x) {
    return detail::rows_of_xtensor(x, "padded_of");
}

}  // namespace grpo::inline v0
