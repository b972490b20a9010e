// One loss evaluated several times, for counting instructions: instructions {hand|composed|bare} REPEATS.
//   hand      the hand-written loop
//   composed  the same loss composed of terms, with the library's defaults: bounded log-ratios, non-finite counted
//   bare      the same without the bounds
// Each behind a call that no optimiser sees through, with hyper-parameters that it does not know.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <grpo/grpo.hpp>

#include "cases.hpp"
#include "handwritten.hpp"

namespace {

[[gnu::noinline]] double hand(const bench::batch& data, const handwritten::clip_k3& p, std::vector<float>& gradient) {
    return handwritten::token_loss(data.rows, data.width, data.logp.data(), data.logp_old.data(), data.logp_ref.data(),
                                   data.advantage.data(), data.mask.data(), static_cast<double>(data.active), p,
                                   gradient.data());
}

template <class Loss>
[[gnu::noinline]] double composed(const bench::batch& data, const Loss& loss, std::vector<float>& gradient) {
    const auto shape = grpo::padded(data.rows, data.width).where(data.mask);
    const auto batch = grpo::batch(shape, grpo::logp(data.logp), grpo::logp_old(data.logp_old),
                                   grpo::logp_ref(data.logp_ref), grpo::advantage(grpo::by_sequence(data.advantage)));
    const double n = static_cast<double>(data.active);
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, batch, n, grpo::d_logp(gradient));
    return r.loss(n) + static_cast<double>(r.nonfinite);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: instructions {hand|composed|bare} REPEATS\n");
        return 2;
    }
    const long repeats = std::strtol(argv[2], nullptr, 10);
    const bench::batch data = bench::make_batch(64, 1024, bench::masking::ragged);
    std::vector<float> gradient(data.logp.size());
    const double low = std::strtod("0.2", nullptr);
    const double beta = std::strtod("0.04", nullptr);
    const double bound = std::strcmp(argv[1], "bare") == 0 ? grpo::math::unbounded : 20.0;
    const grpo::objective loss{grpo::clipped{.low = low, .high = low, .bound = {.bound = bound}} +
                                   beta * grpo::kl{.bound = {.bound = bound}},
                               grpo::aggregation::token_mean()};
    const handwritten::clip_k3 p{static_cast<float>(low), static_cast<float>(low), static_cast<float>(beta)};
    double sum = 0;
    for (long k = 0; k < repeats; ++k) {
        sum += std::strcmp(argv[1], "hand") == 0 ? hand(data, p, gradient) : composed(data, loss, gradient);
    }
    std::printf("%.9g %.9g\n", sum, static_cast<double>(gradient[5]));
}
