// Eigen's vectors, matrices, Maps and Blocks as arrays and shapes.
#include <doctest/doctest.h>

#include <grpo/adapt/eigen.hpp>

#include <support/adapted.hpp>

namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using adapted::rows;
using adapted::width;

template <class Matrix>
void fill(Matrix&& m, int salt) {
    for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < width; ++k) m(i, k) = adapted::number(i, k, salt);
    }
}

template <class A, class B, class G>
void check(const A& logp, const B& old, G&& gradient) {
    const adapted::expectation expected = adapted::plain();
    const double loss = adapted::evaluate(grpo::padded_of(logp), grpo::view_of(logp), grpo::view_of(old), grpo::view_of(gradient));
    CHECK(loss == expected.loss);
    for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < width; ++k) CHECK(gradient(i, k) == expected.gradient[static_cast<std::size_t>(i * width + k)]);
    }
}

TEST_CASE("a row-major matrix is a padded batch") {
    row_major logp(rows, width), old(rows, width), gradient(rows, width);
    fill(logp, 0);
    fill(old, 1);
    check(logp, old, gradient);
}

TEST_CASE("blocks and Maps keep their row stride") {
    row_major logp = row_major::Constant(rows + 1, width + 3, 99.0f), old = logp, gradient = logp;
    fill(logp.block(1, 2, rows, width), 0);
    fill(old.block(1, 2, rows, width), 1);
    const auto x = logp.block(1, 2, rows, width);
    const auto y = old.block(1, 2, rows, width);
    auto g = gradient.block(1, 2, rows, width);
    CHECK(grpo::padded_of(x).stride == width + 3);
    CHECK(grpo::view_of(x).size() == grpo::padded_of(x).extent());
    check(x, y, g);
    // Nothing was written outside the block.
    CHECK(gradient.row(0) == row_major::Constant(1, width + 3, 99.0f));
    CHECK(gradient(1, 1) == 99.0f);
    CHECK(gradient(1, width + 2) == 99.0f);

    const Eigen::Map<const row_major, 0, Eigen::OuterStride<>> map(&logp(1, 2), rows, width, Eigen::OuterStride<>(width + 3));
    CHECK(grpo::padded_of(map).stride == width + 3);
    CHECK(grpo::view_of(map).data() == &logp(1, 2));
}

TEST_CASE("the transpose of a column-major [T, B] matrix is a batch of its columns") {
    Eigen::MatrixXf logp(width, rows), old(width, rows), gradient(width, rows);
    fill(logp.transpose(), 0);
    fill(old.transpose(), 1);
    check(logp.transpose(), old.transpose(), gradient.transpose());
}

TEST_CASE("vectors of either orientation, Maps and segments are arrays") {
    Eigen::VectorXf column = Eigen::VectorXf::LinSpaced(6, 0, 5);
    Eigen::RowVectorXd row = Eigen::RowVectorXd::LinSpaced(6, 0, 5);
    CHECK(grpo::view_of(column).size() == 6);
    CHECK(grpo::view_of(column).data() == column.data());
    CHECK(grpo::view_of(row)[5] == 5.0);
    CHECK(grpo::view_of(column.segment(2, 3))[0] == 2.0f);
    CHECK(grpo::view_of(column.segment(2, 3)).size() == 3);
    CHECK(grpo::padded_of(column).rows() == 1);
    CHECK(grpo::padded_of(column).width == 6);
    const Eigen::VectorXf fixed = column;
    static_assert(std::is_same_v<decltype(grpo::view_of(fixed)), grpo::view<const float>>);
    static_assert(std::is_same_v<decltype(grpo::view_of(column)), grpo::view<float>>);
    row_major m = row_major::Zero(2, 4);
    CHECK(grpo::view_of(m.row(1)).data() == &m(1, 0));
}

TEST_CASE("empty matrices are empty batches") {
    const row_major none(0, 4), narrow(3, 0);
    CHECK(grpo::view_of(none).size() == 0);
    CHECK(grpo::padded_of(none).rows() == 0);
    CHECK(grpo::padded_of(narrow).rows() == 3);
    CHECK(grpo::padded_of(narrow).extent() == 0);
    CHECK(grpo::view_of(narrow).size() == 0);
}

TEST_CASE("a stride between neighbours is refused with both numbers") {
    row_major m = row_major::Zero(4, 5);
    const std::string text = adapted::sentence([&] { (void)grpo::view_of(m.col(1)); });
    CHECK(adapted::contains(text, "grpo::view_of"));
    CHECK(adapted::contains(text, "inner stride 5"));
    CHECK(adapted::contains(text, "stride 1"));
    const Eigen::Map<row_major, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> sparse(
        m.data(), 2, 2, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(10, 2));
    CHECK(adapted::contains(adapted::sentence([&] { (void)grpo::padded_of(sparse); }), "inner stride 2"));
    // A single entry has no neighbour.
    CHECK(adapted::sentence([&] { (void)grpo::view_of(m.col(1).head(1)); }) == "");
}

}  // namespace
