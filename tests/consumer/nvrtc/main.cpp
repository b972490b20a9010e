// A kernel, compiled where NVRTC is installed; the program starts where it is not.
#include <cstdio>
#include <cstring>

#include <grpo/exec/nvrtc.hpp>
#include <grpo/grpo.hpp>

// What a program with a device does.
const grpo::loss_result* evaluate(CUstream stream, grpo::view<std::byte> workspace, const float* x, float* gradient) {
    const std::int64_t rows = 2, length = 3;
    const auto part = [&](int k) { return grpo::view<const float>(x + k * rows * length, rows * length); };
    const grpo::nvrtc gpu(stream, workspace);
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const auto batch = grpo::batch(grpo::padded(rows, length), grpo::logp(part(0)), grpo::logp_old(part(1)), grpo::advantage(part(2)));
    return grpo::evaluate(gpu, loss, batch, 6.0, grpo::d_logp(grpo::view<float>(gradient, rows * length)));
}

int main(int argc, char**) {
    if (argc > 1) (void)evaluate(nullptr, {}, nullptr, nullptr);
    try {
        grpo::nvrtc_kernels kernels;
        if (kernels.compile_all(80) != 1) return 1;
    } catch (const grpo::error& e) {
        if (std::strncmp(e.what(), "grpo::nvrtc: NVRTC cannot be opened", 35) != 0) {
            std::puts(e.what());
            return 1;
        }
    }
    std::printf("grpo %d.%d.%d\n", GRPO_VERSION_MAJOR, GRPO_VERSION_MINOR, GRPO_VERSION_PATCH);
}
