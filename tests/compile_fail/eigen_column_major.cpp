// expect: this Eigen matrix is column-major, so its rows are not contiguous: use Eigen::RowMajor
#include <grpo/adapt/eigen.hpp>

int main() {
    Eigen::MatrixXf m(2, 3);
    (void)grpo::view_of(m);
}
