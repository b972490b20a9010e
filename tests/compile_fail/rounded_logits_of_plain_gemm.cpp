// expect: this GEMM policy does not write logits of 16 bits: rounded_logits() needs cublas_gemm or onednn_gemm
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/head.hpp>

int main() {
    const std::vector<float> x(2);
    const std::vector<grpo::bfloat16> hidden(8), weight(12);
    std::vector<std::byte> memory(4096);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp_old(x), grpo::advantage(x));
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const auto head = grpo::rounded_logits(grpo::linear(hidden, weight, 2, 3, 4));
    (void)grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, loss, head, std::vector<int>{0, 1}, {}, b, 2.0, {},
                                grpo::view(memory));
}
