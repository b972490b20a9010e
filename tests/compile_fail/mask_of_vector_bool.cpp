// expect: std::vector<bool> has no memory to view
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const std::vector<bool> mask(2);
    const auto shape = grpo::padded(1, 2).where(mask);
    (void)shape;
    (void)x;
    (void)g;
}
