// expect: ragged() takes cu_seqlens: a container of offsets, rows + 1 of them
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::ragged shape(2);
    (void)shape;
    (void)x;
    (void)g;
}
