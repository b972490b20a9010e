// xtensor's arrays and views as arrays and shapes.
#include <array>
#include <cstddef>

#include <doctest/doctest.h>

#include <grpo/adapt/xtensor.hpp>

#if __has_include(<xtensor/views/xview.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xview.hpp>
#endif

#include <support/adapted.hpp>

namespace {

using adapted::rows;
using adapted::width;
using matrix = xt::xtensor<float, 2>;

template <class Matrix>
void fill(Matrix&& m, int salt) {
    for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < width; ++k) m(i, k) = adapted::number(i, k, salt);
    }
}

template <class A, class B, class G>
void check(A& logp, B& old, G& gradient) {
    const adapted::expectation expected = adapted::plain();
    const double loss = adapted::evaluate(grpo::padded_of(logp), grpo::view_of(logp), grpo::view_of(old), grpo::view_of(gradient));
    CHECK(loss == expected.loss);
    for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < width; ++k) CHECK(gradient(i, k) == expected.gradient[static_cast<std::size_t>(i * width + k)]);
    }
}

std::array<std::size_t, 2> size_of(int m, int n) { return {static_cast<std::size_t>(m), static_cast<std::size_t>(n)}; }

TEST_CASE("a matrix is a padded batch") {
    matrix logp(size_of(rows, width)), old(size_of(rows, width)), gradient(size_of(rows, width));
    fill(logp, 0);
    fill(old, 1);
    check(logp, old, gradient);
}

TEST_CASE("a view keeps its offset and row stride") {
    matrix logp(size_of(rows + 1, width + 3), 99.0f), old = logp, gradient = logp;
    const auto part = [](matrix& m) { return xt::view(m, xt::range(1, rows + 1), xt::range(2, width + 2)); };
    auto x = part(logp), y = part(old), g = part(gradient);
    fill(x, 0);
    fill(y, 1);
    CHECK(grpo::padded_of(x).stride == width + 3);
    CHECK(grpo::view_of(x).size() == grpo::padded_of(x).extent());
    CHECK(grpo::view_of(x).data() == &logp(1, 2));
    check(x, y, g);
    CHECK(gradient(0, 4) == 99.0f);
    CHECK(gradient(1, 1) == 99.0f);
    CHECK(gradient(1, width + 2) == 99.0f);
}

TEST_CASE("vectors, and the stride 0 of a single row or column") {
    xt::xtensor<double, 1> v({6}, 0.5);
    CHECK(grpo::view_of(v).size() == 6);
    CHECK(grpo::padded_of(v).rows() == 1);
    CHECK(grpo::padded_of(v).width == 6);
    const matrix row(size_of(1, 4), 0.0f), column(size_of(4, 1), 0.0f), none(size_of(0, 4));
    CHECK(grpo::padded_of(row).rows() == 1);
    CHECK(grpo::padded_of(row).extent() == 4);
    CHECK(grpo::padded_of(column).rows() == 4);
    CHECK(grpo::padded_of(column).extent() == 4);
    CHECK(grpo::padded_of(none).extent() == 0);
    const xt::xarray<float> dynamic(std::vector<std::size_t>{2, 3}, 1.0f);
    CHECK(grpo::padded_of(dynamic).width == 3);
    CHECK(grpo::view_of(dynamic).size() == 6);
    static_assert(std::is_same_v<decltype(grpo::view_of(row)), grpo::view<const float>>);
    static_assert(std::is_same_v<decltype(grpo::view_of(v)), grpo::view<double>>);
}

TEST_CASE("column-major arrays, strides and more dimensions are refused with a sentence") {
    xt::xtensor<float, 2, xt::layout_type::column_major> columns(size_of(4, 5), 0.0f);
    const std::string text = adapted::sentence([&] { (void)grpo::view_of(columns); });
    CHECK(adapted::contains(text, "grpo::view_of"));
    CHECK(adapted::contains(text, "stride 4"));
    matrix m(size_of(4, 6), 0.0f);
    auto sparse = xt::view(m, xt::all(), xt::range(0, 6, 2));
    CHECK(adapted::contains(adapted::sentence([&] { (void)grpo::padded_of(sparse); }), "stride 2"));
    xt::xtensor<float, 3> cube({2, 3, 4}, 0.0f);
    CHECK(adapted::contains(adapted::sentence([&] { (void)grpo::padded_of(cube); }), "has 3 dimensions"));
}

}  // namespace
