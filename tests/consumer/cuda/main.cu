// A loss on a device, if there is one.
#include <cstdio>

#include COMPONENT_HEADER
#include <grpo/exec/cuda.cuh>
#include <grpo/grpo.hpp>

double evaluate() {
    const std::int64_t rows = 2, length = 3;
    float* x = nullptr;
    std::byte* workspace = nullptr;
    cudaMalloc(&x, 4 * rows * length * sizeof(float));
    cudaMalloc(&workspace, static_cast<std::size_t>(grpo::cuda::workspace_bytes(rows)));
    cudaMemset(x, 0, 4 * rows * length * sizeof(float));
    const auto part = [&](int k) { return grpo::view<const float>(x + k * rows * length, rows * length); };
    const grpo::cuda gpu(nullptr, {workspace, grpo::cuda::workspace_bytes(rows)});
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const auto batch = grpo::batch(grpo::padded(rows, length), grpo::logp(part(0)), grpo::logp_old(part(1)), grpo::advantage(part(2)));
    const grpo::loss_result* there =
        grpo::evaluate(gpu, loss, batch, 6.0, grpo::d_logp(grpo::view<float>(x + 3 * rows * length, rows * length)));
    grpo::loss_result here;
    cudaMemcpy(&here, there, sizeof here, cudaMemcpyDeviceToHost);
    cudaFree(workspace);
    cudaFree(x);
    return here.loss(6.0);
}

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0 && evaluate() != 0) return 1;
    std::printf("grpo %d.%d.%d\n", GRPO_VERSION_MAJOR, GRPO_VERSION_MINOR, GRPO_VERSION_PATCH);
}
