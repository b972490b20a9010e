// The LibTorch adapter from hidden states, against torch's own products and autograd in double.
#include <grpo/adapt/torch.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include <doctest/doctest.h>
#include <torch/csrc/autograd/autograd.h>

#include <support/adapted.hpp>
#include <support/rounding_gemm.hpp>

namespace {

using adapted::sentence;
using at::Tensor;
namespace lt = grpo::libtorch;

constexpr std::int64_t rows = 3, tokens = 5, width = 7, vocabulary = 23;

const grpo::objective plain_loss{grpo::clipped{} + 0.1 * grpo::entropy_bonus{}, grpo::aggregation::token_mean()};

Tensor normal(at::IntArrayRef sizes, at::ScalarType type) {
    return at::randn(sizes, at::kDouble).to(type);
}
double difference(const Tensor& a, const Tensor& b) {
    const Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
    return ((x - y).abs().max() / y.abs().max()).item<double>();
}

struct example {
    Tensor mask = at::rand({rows, tokens}).gt(0.3);
    Tensor targets = at::randint(vocabulary, {rows, tokens}, at::kLong);
    Tensor hidden, weight, bias, old, advantage;

    explicit example(at::ScalarType type) {
        at::manual_seed(4);
        mask[0][1] = true;
        hidden = normal({rows, tokens, width}, type).requires_grad_(true);
        weight = normal({vocabulary, width}, type).requires_grad_(true);
        bias = normal({vocabulary}, type).requires_grad_(true);
        const auto compute = type == at::kDouble ? at::kDouble : at::kFloat;
        old = normal({rows, tokens}, compute).sub(3);
        advantage = normal({rows}, compute);
    }
    // clipped + 0.1 entropy bonus, token mean.
    Tensor composed(const Tensor& h, const Tensor& w, const Tensor& b, double temperature) const {
        const Tensor z = (h.matmul(w.t()) + b).div(temperature).log_softmax(-1);
        const Tensor logp = z.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
        const Tensor ratio = (logp - old.to(at::kDouble)).exp();
        const Tensor a = advantage.to(at::kDouble).unsqueeze(-1);
        const Tensor entropy = -(z.exp() * z).sum(-1);
        const Tensor each = -at::min(ratio * a, ratio.clamp(0.8, 1.2) * a) - 0.1 * entropy;
        return each.masked_select(mask).mean();
    }
    lt::token_tensors batch() const { return {.logp_old = old, .advantage = advantage, .mask = mask}; }
};

template <class Gemm>
void check(at::ScalarType type, double tolerance, const Gemm& gemm) {
    const example e(type);
    const lt::loss got = lt::evaluate_hidden(plain_loss, e.hidden, e.weight, e.targets,
                                             {.temperature = 0.8, .bias = e.bias, .chunk = 4}, e.batch(), {}, gemm);
    const Tensor h = e.hidden.detach().to(at::kDouble).requires_grad_(true), w = e.weight.detach().to(at::kDouble).requires_grad_(true),
                 b = e.bias.detach().to(at::kFloat).to(at::kDouble).requires_grad_(true);
    const Tensor want = e.composed(h, w, b, 0.8);
    REQUIRE(difference(got.value, want) < tolerance);
    const auto wanted = torch::autograd::grad({want * 3}, {h, w, b});
    const auto gradients = torch::autograd::grad({got.value * 3}, {e.hidden, e.weight, e.bias});
    for (std::size_t k = 0; k < 3; ++k) {
        REQUIRE(gradients[k].sizes().equals(wanted[k].sizes()));
        REQUIRE(difference(gradients[k], wanted[k]) < tolerance);
    }
    REQUIRE((gradients[0].scalar_type() == type));
    REQUIRE((gradients[1].scalar_type() == type));
}

}  // namespace

TEST_CASE("a loss from hidden states has torch's value and gradients, in every type") {
    check(at::kDouble, 1e-6, grpo::plain_gemm{});  // the bias is read as float32
    check(at::kFloat, 1e-5, grpo::plain_gemm{});
    check(at::kBFloat16, 3e-2, grpo::plain_gemm{});
    check(at::kHalf, 5e-3, grpo::plain_gemm{});
}

TEST_CASE("rounded logits are those of torch's product in 16 bits") {
    const example e(at::kBFloat16);
    const at::NoGradGuard without;
    const auto value = [&](bool rounded) {
        return lt::evaluate_hidden(plain_loss, e.hidden, e.weight, e.targets, {.bias = e.bias, .rounded_logits = rounded}, e.batch(), {},
                                   rounding_gemm{}).value;
    };
    const Tensor logits = e.hidden.matmul(e.weight.t());
    REQUIRE((logits.scalar_type() == at::kBFloat16));
    const auto like_torch = [&](const Tensor& z) {
        const Tensor one = at::eye(vocabulary, at::kDouble);  // logits as states of a head that leaves them as they are
        return e.composed(z.to(at::kDouble), one, e.bias.to(at::kDouble), 1.0);
    };
    const Tensor wide = e.hidden.to(at::kDouble).matmul(e.weight.to(at::kDouble).t());
    REQUIRE(difference(value(true), like_torch(logits)) < 1e-5);
    REQUIRE(difference(value(false), like_torch(wide)) < 1e-5);
    REQUIRE(difference(like_torch(logits), like_torch(wide)) > 1e-4);
}

TEST_CASE("R1.12 states of masked tokens are not read, and their gradient is 0") {
    example e(at::kDouble);
    const Tensor poisoned = e.hidden.detach().masked_fill(e.mask.logical_not().unsqueeze(-1), std::numeric_limits<double>::quiet_NaN());
    const Tensor h = poisoned.clone().requires_grad_(true);
    const lt::loss got = lt::evaluate_hidden(plain_loss, h, e.weight, e.targets, {}, e.batch());
    const lt::loss clean = lt::evaluate_hidden(plain_loss, e.hidden, e.weight, e.targets, {}, e.batch());
    REQUIRE(got.value.item<double>() == clean.value.item<double>());
    const auto a = torch::autograd::grad({got.value}, {h, e.weight}, {}, true);
    const auto b = torch::autograd::grad({clean.value}, {e.hidden, e.weight}, {}, true);
    REQUIRE(at::equal(a[0], b[0]));
    REQUIRE(at::equal(a[1], b[1]));
    REQUIRE(a[0].masked_select(e.mask.logical_not().unsqueeze(-1)).abs().max().item<double>() == 0.0);
}

TEST_CASE("the exact KL to another head, and the loss alone") {
    const example e(at::kDouble);
    const auto loss = grpo::objective{0.3 * grpo::exact_kl{}, grpo::aggregation::token_mean()};
    const Tensor hidden_ref = normal({rows, tokens, 3}, at::kDouble), weight_ref = normal({vocabulary, 3}, at::kDouble);
    const lt::hidden_options options{.hidden_ref = hidden_ref, .weight_ref = weight_ref};
    const lt::loss got = lt::evaluate_hidden(loss, e.hidden, e.weight, e.targets, options, {.mask = e.mask});
    const Tensor p = e.hidden.matmul(e.weight.t()).log_softmax(-1), q = hidden_ref.matmul(weight_ref.t()).log_softmax(-1);
    const Tensor want = 0.3 * (p.exp() * (p - q)).sum(-1).masked_select(e.mask).mean();
    REQUIRE(difference(got.value, want) < 1e-12);
    const auto a = torch::autograd::grad({got.value}, {e.hidden, e.weight});
    const auto b = torch::autograd::grad({want}, {e.hidden, e.weight});
    REQUIRE(difference(a[0], b[0]) < 1e-11);
    REQUIRE(difference(a[1], b[1]) < 1e-11);
    const at::NoGradGuard without;
    const lt::loss alone = lt::evaluate_hidden(loss, e.hidden, e.weight, e.targets, options, {.mask = e.mask});
    REQUIRE(!alone.value.requires_grad());
    REQUIRE(alone.value.item<double>() == doctest::Approx(want.item<double>()).epsilon(1e-12));
}

TEST_CASE("mistakes are sentences; a second derivative is refused") {
    const example e(at::kFloat);
    const auto run = [&](const Tensor& h, const Tensor& w, const lt::hidden_options& o, const lt::token_tensors& x) {
        return sentence([&] { (void)lt::evaluate_hidden(plain_loss, h, w, e.targets, o, x); });
    };
    REQUIRE(run(e.hidden, e.weight.to(at::kDouble), {}, e.batch()) ==
            "grpo::libtorch::evaluate_hidden: weight is [23, 7] of type Double, but the states are [3, 5, 7] of type Float");
    REQUIRE(run(e.hidden[0], e.weight, {}, e.batch()) ==
            "grpo::libtorch::evaluate_hidden: hidden has the shape [5, 7], but the targets have [3, 5]: a state for each is wanted");
    REQUIRE(run(e.hidden, e.weight, {.chunk = 0}, e.batch()) ==
            "grpo::libtorch::evaluate_hidden: chunk is 0, but must be at least 1");
    REQUIRE(run(e.hidden, e.weight, {.rounded_logits = true}, e.batch()) ==
            "grpo::libtorch::evaluate_hidden: rounded_logits is set, but this gemm does not write logits of Float: cublas_gemm and "
            "onednn_gemm write those of 16-bit states");
    lt::token_tensors with_logp = e.batch();
    with_logp.logp = e.old;
    REQUIRE(run(e.hidden, e.weight, {}, with_logp) ==
            "grpo::libtorch::evaluate_hidden: logp is given, but comes from the states: leave it out");
    const lt::loss got = lt::evaluate_hidden(plain_loss, e.hidden, e.weight, e.targets, {}, e.batch());
    const auto first = torch::autograd::grad({got.value}, {e.hidden}, {}, true, true);
    REQUIRE_THROWS((void)torch::autograd::grad({first[0].sum()}, {e.weight}));
}
