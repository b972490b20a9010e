// The LibTorch adapter against formulas composed of torch's own operations.
#include <grpo/adapt/torch.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <grpo/exec/threads.hpp>
#if __has_include(<xsimd/xsimd.hpp>)
#include <grpo/exec/simd.hpp>
#endif

#include <doctest/doctest.h>
#include <torch/csrc/autograd/autograd.h>

#include <support/adapted.hpp>

namespace {

using at::Tensor;

double difference(const Tensor& a, const Tensor& b) {
    return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

Tensor normal(at::IntArrayRef sizes, at::ScalarType type, double scale = 1) {
    return at::randn(sizes, at::kDouble).mul_(scale).to(type);
}

// clipped + 0.04 k3, averaged over the tokens of the mask.
Tensor composed(const Tensor& logp, const Tensor& old, const Tensor& ref, const Tensor& a, const Tensor& mask) {
    const Tensor ratio = (logp - old).exp();
    const Tensor surrogate = -at::min(ratio * a, ratio.clamp(0.8, 1.28) * a);
    const Tensor kl = (ref - logp).exp() - (ref - logp) - 1;
    return ((surrogate + 0.04 * kl) * mask).sum() / mask.sum();
}

}  // namespace

TEST_CASE("clipped and a KL from log-probabilities: value and gradient are those of composed torch") {
    at::manual_seed(1);
    const grpo::objective o{grpo::clipped{.low = 0.2, .high = 0.28} + 0.04 * grpo::kl{},
                            grpo::aggregation::token_mean()};
    for (const auto type : {at::kFloat, at::kDouble}) {
        const double tolerance = type == at::kFloat ? 1e-6 : 1e-12;
        const Tensor logp = normal({3, 7}, type, 0.3).requires_grad_(true);
        const Tensor old = normal({3, 7}, type, 0.3);
        const Tensor ref = normal({3, 7}, type, 0.3);
        const Tensor a = normal({3, 1}, type);
        const Tensor mask = at::rand({3, 7}).gt(0.3);
        const auto r =
            grpo::libtorch::evaluate(o, {.logp = logp, .logp_old = old, .logp_ref = ref, .advantage = a, .mask = mask});
        r.value.mul(3).backward();
        const Tensor ours = logp.grad().clone();
        logp.mutable_grad().reset();
        const Tensor expected = composed(logp, old, ref, a, mask.to(type));
        expected.mul(3).backward();
        CHECK(difference(r.value, expected) < tolerance);
        CHECK(difference(ours, logp.grad()) < tolerance);
        CHECK((ours.scalar_type() == type));
        CHECK((r.value.scalar_type() == type));
    }
}

TEST_CASE("from logits: the gradient reaches the logits, in their type") {
    at::manual_seed(2);
    const grpo::objective o{grpo::clipped{.low = 0.2, .high = 0.28} + 0.04 * grpo::kl{},
                            grpo::aggregation::token_mean()};
    const Tensor logits = normal({2, 5, 11}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(11, {2, 5}, at::kLong);
    const Tensor mask = at::rand({2, 5}).gt(0.2);
    const Tensor logp = (logits / 0.7).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1);
    const Tensor old = logp.detach() + normal({2, 5}, at::kDouble, 0.2);
    const Tensor ref = logp.detach() + normal({2, 5}, at::kDouble, 0.2);
    const Tensor a = normal({2}, at::kDouble);
    const auto r = grpo::libtorch::evaluate_logits(o, logits, targets, {.temperature = 0.7},
                                                   {.logp_old = old, .logp_ref = ref, .advantage = a, .mask = mask});
    r.value.backward();
    const Tensor ours = logits.grad().clone();
    logits.mutable_grad().reset();
    const Tensor expected = composed(logp, old, ref, a.unsqueeze(1), mask.to(at::kDouble));
    expected.backward();
    CHECK(difference(r.value, expected) < 1e-12);
    CHECK(difference(ours, logits.grad()) < 1e-12);
}

TEST_CASE("token_logp is log_softmax and gather, with the entropy") {
    at::manual_seed(3);
    const Tensor logits = normal({4, 9}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(9, {4}, at::kLong);
    const auto s = grpo::libtorch::token_logp(logits, targets, {.temperature = 2}, true);
    (s.logp.sum() + 0.3 * s.entropy.square().sum()).backward();
    const Tensor ours = logits.grad().clone();
    logits.mutable_grad().reset();
    const Tensor all = (logits / 2).log_softmax(-1);
    const Tensor logp = all.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
    const Tensor entropy = -(all.exp() * all).sum(-1);
    (logp.sum() + 0.3 * entropy.square().sum()).backward();
    CHECK(difference(s.logp, logp) < 1e-12);
    CHECK(difference(s.entropy, entropy) < 1e-12);
    CHECK(difference(ours, logits.grad()) < 1e-12);
}

TEST_CASE("pairs: DPO is log_sigmoid of the scaled difference") {
    at::manual_seed(4);
    const Tensor chosen = normal({6}, at::kFloat).requires_grad_(true);
    const Tensor rejected = normal({6}, at::kFloat).requires_grad_(true);
    const Tensor ref_chosen = normal({6}, at::kFloat);
    const Tensor ref_rejected = normal({6}, at::kFloat);
    const grpo::objective o{grpo::dpo{.beta = 0.1}, grpo::aggregation::token_mean()};
    const auto r = grpo::libtorch::evaluate(
        o, grpo::libtorch::pair_tensors{
               .chosen = chosen, .rejected = rejected, .ref_chosen = ref_chosen, .ref_rejected = ref_rejected});
    r.value.backward();
    const Tensor first = chosen.grad().clone();
    const Tensor second = rejected.grad().clone();
    chosen.mutable_grad().reset();
    rejected.mutable_grad().reset();
    const Tensor expected = -at::log_sigmoid(0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))).mean();
    expected.backward();
    CHECK(difference(r.value, expected) < 1e-6);
    CHECK(difference(first, chosen.grad()) < 1e-6);
    CHECK(difference(second, rejected.grad()) < 1e-6);
}

TEST_CASE("advantages, statistics and whitening are torch's mean and standard deviation") {
    at::manual_seed(5);
    const Tensor rewards = at::rand({4, 8}, at::kDouble);
    const Tensor mean = rewards.mean(1, true);
    const Tensor deviation = rewards.std(1, true, true);
    const Tensor a = grpo::libtorch::advantages(grpo::recipe::advantages("grpo"), rewards, 8);
    CHECK(difference(a, (rewards - mean) / (deviation + 1e-4)) < 1e-3);
    const Tensor dr = grpo::libtorch::advantages(grpo::recipe::advantages("dr_grpo"), rewards, at::arange(5).mul(8));
    CHECK(difference(dr, rewards - mean) < 1e-12);
    const auto s = grpo::libtorch::group_statistics(rewards, 8);
    CHECK(difference(s.mean, mean.squeeze(1)) < 1e-12);
    CHECK(difference(s.deviation, deviation.squeeze(1)) < 1e-12);
    CHECK(s.size.eq(8).all().item<bool>());
    CHECK_FALSE(s.degenerate.any().item<bool>());
    const Tensor w = grpo::libtorch::whiten(rewards, {}, {.eps = 0});
    CHECK(difference(w, (rewards - rewards.mean()) / rewards.std()) < 1e-12);
}

TEST_CASE("gae is the recursion, step by step") {
    at::manual_seed(6);
    const Tensor reward = at::rand({2, 5}, at::kDouble);
    const Tensor value = at::rand({2, 5}, at::kDouble);
    const auto e = grpo::libtorch::gae({.reward = reward, .value = value}, {.gamma = 0.9, .lambda = 0.8});
    Tensor next_value = at::zeros({2}, at::kDouble);
    Tensor next = at::zeros({2}, at::kDouble);
    for (std::int64_t t = 4; t >= 0; --t) {
        next = reward.select(1, t) + 0.9 * next_value - value.select(1, t) + 0.9 * 0.8 * next;
        next_value = value.select(1, t);
        CHECK(difference(e.advantage.select(1, t), next) < 1e-12);
        CHECK(difference(e.returns.select(1, t), next + next_value) < 1e-12);
    }
}

namespace {

using adapted::sentence;

const grpo::objective clip{grpo::clipped{}, grpo::aggregation::token_mean()};

struct flat_batch {
    Tensor logp = normal({3, 4}, at::kDouble, 0.3).requires_grad_(true);
    Tensor old = normal({3, 4}, at::kDouble, 0.3);
    Tensor advantage = normal({3}, at::kDouble);
};

Tensor gradient(const Tensor& value, const Tensor& x) {
    return torch::autograd::grad({value}, {x})[0];
}

}  // namespace

TEST_CASE("R1.12 masked entries of tensors may hold NaN: loss and gradient keep every bit, and are 0 there") {
    at::manual_seed(7);
    const flat_batch b;
    const Tensor mask = at::rand({3, 4}).gt(0.5);
    const auto run = [&](const Tensor& x, const Tensor& old) {
        const auto r =
            grpo::libtorch::evaluate(clip, {.logp = x, .logp_old = old, .advantage = b.advantage, .mask = mask});
        return std::pair(r.value.detach(), gradient(r.value, x));
    };
    const auto plain = run(b.logp, b.old);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const Tensor hidden = b.logp.detach().masked_fill(mask.logical_not(), nan).requires_grad_(true);
    const auto poisoned = run(hidden, b.old.masked_fill(mask.logical_not(), nan));
    CHECK(at::equal(plain.first, poisoned.first));
    CHECK(at::equal(plain.second, poisoned.second));
    CHECK(poisoned.second.masked_select(mask.logical_not()).eq(0).all().item<bool>());
}

TEST_CASE("R1.16 a non-finite input of tensors is counted and named") {
    at::manual_seed(7);
    const flat_batch b;
    b.old.view({-1})[6] = std::numeric_limits<double>::infinity();
    const auto r = grpo::libtorch::evaluate(clip, {.logp = b.logp, .logp_old = b.old, .advantage = b.advantage});
    CHECK(r.sums.nonfinite == 1);
    CHECK(r.sums.first_nonfinite == 6);
}

TEST_CASE("R1.30 the on-policy ratio needs no logp_old: value -mean A, gradient -A / N") {
    at::manual_seed(8);
    const flat_batch b;
    const grpo::objective o{grpo::on_policy{}, grpo::aggregation::token_mean()};
    const auto r = grpo::libtorch::evaluate(o, {.logp = b.logp, .advantage = b.advantage});
    CHECK(difference(r.value, -b.advantage.mean()) < 1e-15);
    CHECK(difference(gradient(r.value, b.logp), (-b.advantage / 12).unsqueeze(1).expand({3, 4})) < 1e-15);
}

TEST_CASE("R1.40 logits, log-probabilities and the loss are separate: chained by hand they equal the fused node") {
    at::manual_seed(9);
    const grpo::objective o{grpo::clipped{} + 0.01 * grpo::entropy_bonus{} + 0.5 * grpo::value_loss{},
                            grpo::aggregation::sequence_mean()};
    const Tensor logits = normal({2, 3, 7}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(7, {2, 3}, at::kLong);
    grpo::libtorch::token_tensors x{.values = normal({2, 3}, at::kDouble).requires_grad_(true),
                                    .logp_old = normal({2, 3}, at::kDouble, 0.1) - 2,
                                    .advantage = normal({2}, at::kDouble),
                                    .values_old = normal({2, 3}, at::kDouble),
                                    .returns = normal({2, 3}, at::kDouble)};
    const auto fused = grpo::libtorch::evaluate_logits(o, logits, targets, {}, x);
    const auto one = torch::autograd::grad({fused.value}, {logits, x.values});
    const auto s = grpo::libtorch::token_logp(logits, targets, {}, true);
    x.logp = s.logp;
    x.entropy = s.entropy;
    const auto chained = grpo::libtorch::evaluate(o, x);
    const auto two = torch::autograd::grad({chained.value}, {logits, x.values});
    CHECK(difference(fused.value, chained.value) < 1e-15);
    CHECK(difference(one[0], two[0]) < 1e-15);
    CHECK(difference(one[1], two[1]) < 1e-15);
    CHECK(one[1].abs().max().item<double>() > 1e-3);
    CHECK(sentence([&] { grpo::libtorch::evaluate_logits(o, logits, targets, {}, x); }) ==
          "grpo::libtorch::evaluate_logits: logp is given, but comes from the logits: leave it out");
}

TEST_CASE("a second derivative is refused, whether or not the upstream gradient has a graph") {
    at::manual_seed(10);
    const flat_batch b;
    const Tensor logits = normal({3, 4, 5}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(5, {3, 4}, at::kLong);
    const auto of_logp =
        grpo::libtorch::evaluate(clip, {.logp = b.logp, .logp_old = b.old, .advantage = b.advantage}).value;
    const auto of_logits =
        grpo::libtorch::evaluate_logits(clip, logits, targets, {}, {.logp_old = b.old, .advantage = b.advantage}).value;
    const auto refused = [](const Tensor& loss, const Tensor& x) {
        const Tensor first = torch::autograd::grad({loss}, {x}, {}, true, true)[0];
        CHECK_THROWS_WITH_AS(torch::autograd::grad({first.mul(x).sum()}, {x}),
                             doctest::Contains("differentiated again"), std::exception);
    };
    refused(of_logp, b.logp);
    refused(of_logp.square(), b.logp);
    refused(of_logits, logits);
    refused(grpo::libtorch::token_logp(logits, targets).logp.sum(), logits);
}

TEST_CASE("tensors that cannot be used are refused in one sentence") {
    at::manual_seed(11);
    const flat_batch b;
    const auto run = [&](const grpo::libtorch::token_tensors& x) {
        return sentence([&] { grpo::libtorch::evaluate(clip, x); });
    };
    const std::string begins = "grpo::libtorch::evaluate: ";
    CHECK(run({.logp = b.logp, .advantage = b.advantage}) == begins + "logp_old is missing, but the loss reads it");
    CHECK(run({.logp = b.logp, .logp_old = b.old.to(at::kInt), .advantage = b.advantage}) ==
          begins + "logp_old is of type Int, but must be float32, float64, bfloat16 or float16");
    CHECK(run({.logp = b.logp, .logp_old = b.old.slice(1, 1), .advantage = b.advantage}) ==
          begins +
              "logp_old has the shape [3, 3], but the batch has [3, 4]: neither that, nor one entry for each of 3 "
              "sequences");
    CHECK(run({.logp = b.logp, .logp_old = b.old.to(at::kMeta), .advantage = b.advantage}) ==
          begins + "logp_old is on the device meta, but the adapter computes on the CPU");
    CHECK(run({.logp = b.logp, .logp_old = b.old.to_sparse(), .advantage = b.advantage}) ==
          begins + "logp_old is sparse, but must be a strided tensor");
    CHECK(run({.logp = b.logp, .logp_old = b.logp * 1, .advantage = b.advantage}) ==
          begins + "logp_old requires a gradient, but is a constant of every loss: detach() it");
    CHECK(sentence([&] { grpo::libtorch::gae({.reward = b.old}); }) ==
          "grpo::libtorch::gae: value is missing, but is needed");
    CHECK(sentence([&] { grpo::libtorch::group_statistics(b.advantage, 2); }) ==
          "grpo::libtorch::group_statistics: group_size is 2, which 3 responses cannot be divided by");
    CHECK(sentence([&] { grpo::libtorch::evaluate(clip, grpo::libtorch::token_tensors{}); }) ==
          begins + "logp is missing, but the loss reads it");
}

TEST_CASE("groups of mixed sizes: statistics and process supervision are those of torch") {
    const Tensor rewards = at::tensor({1.0, 3.0, 5.0, 5.0, 7.0}, at::kDouble);
    const auto s = grpo::libtorch::group_statistics(rewards, at::tensor({0, 2, 4, 5}, at::kLong));
    CHECK(at::equal(s.size, at::tensor({2, 2, 1}, at::kLong)));
    CHECK(at::equal(s.mean, at::tensor({2.0, 5.0, 7.0}, at::kDouble)));
    CHECK(difference(s.deviation, at::tensor({std::sqrt(2.0), 0.0, 0.0}, at::kDouble)) < 1e-15);
    CHECK(at::equal(s.degenerate, at::tensor({0, 1, 1}, at::kLong).to(at::kBool)));
    // arXiv 2402.03300, §4.1.3: two responses of one group with two steps and one; a token sums its later steps.
    const Tensor steps = at::tensor({1.0, 0.0, 1.0}, at::kDouble);
    const Tensor z = (steps - steps.mean()) / (steps.std() + 1e-6);
    const Tensor a = grpo::libtorch::process_supervision({.offsets = at::tensor({0, 2, 3}, at::kLong),
                                                          .end = at::tensor({0, 2, 1}, at::kLong),
                                                          .reward = steps,
                                                          .mask = at::ones({2, 3})},
                                                         2);
    const Tensor zero = at::zeros({}, at::kDouble);
    const Tensor expected = at::stack({z[0] + z[1], z[1], z[1], z[2], z[2], zero}).view({2, 3});
    CHECK(difference(a, expected) < 1e-12);
}

TEST_CASE("the upstream gradient of either output reaches the refusal") {
    const Tensor logits = normal({2, 5}, at::kDouble).requires_grad_(true);
    const auto s = grpo::libtorch::token_logp(logits, at::zeros({2}, at::kLong), {}, true);
    const Tensor upstream = at::ones({2}, at::kDouble).requires_grad_(true);
    const Tensor first = torch::autograd::grad({s.entropy}, {logits}, {upstream}, true, true)[0];
    CHECK_THROWS_WITH_AS(torch::autograd::grad({first.sum()}, {upstream}, {}, true, false, true),
                         doctest::Contains("differentiated again"), std::exception);
}

TEST_CASE("threads forwards and backwards: the same bits") {
    at::manual_seed(12);
    const flat_batch b;
    const grpo::threads two(2);
    const Tensor logits = normal({3, 4, 9}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(9, {3, 4}, at::kLong);
    const grpo::libtorch::token_tensors x{.logp_old = b.old - 3, .advantage = b.advantage};
    const Tensor alone = grpo::libtorch::evaluate_logits(clip, logits, targets, {}, x).value;
    const Tensor shared = grpo::libtorch::evaluate_logits(clip, logits, targets, {}, x, {}, two).value;
    CHECK(at::equal(alone, shared));
    CHECK(at::equal(gradient(alone, logits), gradient(shared, logits)));
}

#if __has_include(<xsimd/xsimd.hpp>)
TEST_CASE("packs forwards and backwards: the same to rounding") {
    at::manual_seed(12);
    const flat_batch b;
    const Tensor logits = normal({3, 4, 37}, at::kDouble).requires_grad_(true);
    const Tensor targets = at::randint(37, {3, 4}, at::kLong);
    const grpo::libtorch::token_tensors x{.logp_old = b.old - 3, .advantage = b.advantage};
    const Tensor one = grpo::libtorch::evaluate_logits(clip, logits, targets, {}, x).value;
    const Tensor two = grpo::libtorch::evaluate_logits(clip, logits, targets, {}, x, {}, grpo::simd{}).value;
    CHECK(difference(one, two) < 1e-13);
    CHECK(difference(gradient(one, logits), gradient(two, logits)) < 1e-13);
}
#endif

TEST_CASE("empty batches, padded and ragged, have the loss 0 and an empty gradient") {
    for (const bool flat : {false, true}) {
        const Tensor logp = (flat ? at::zeros({0}) : at::zeros({0, 4})).requires_grad_(true);
        const Tensor none = at::zeros_like(logp.detach());
        const auto r = grpo::libtorch::evaluate(clip, {.logp = logp,
                                                       .logp_old = none,
                                                       .advantage = none,
                                                       .cu_seqlens = flat ? at::zeros({1}, at::kLong) : Tensor()});
        CHECK(r.value.item<float>() == 0.0f);
        CHECK(gradient(r.value, logp).sizes() == logp.sizes());
    }
}
