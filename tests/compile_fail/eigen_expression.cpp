// expect: this Eigen expression has no memory of its own: assign it to a matrix first
#include <grpo/adapt/eigen.hpp>

int main() {
    Eigen::VectorXf a(3), b(3);
    (void)grpo::view_of(a + b);
}
