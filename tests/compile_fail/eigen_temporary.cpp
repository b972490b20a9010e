// expect: view_of() of a temporary matrix would dangle: give it a name
#include <grpo/adapt/eigen.hpp>

int main() {
    Eigen::VectorXf a(3), b(3);
    (void)grpo::view_of(Eigen::VectorXf(a + b));
}
