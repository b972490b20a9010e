// expect: cu_seqlens must be int32 or int64 offsets
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::ragged shape(x);
    (void)shape;
    (void)g;
}
