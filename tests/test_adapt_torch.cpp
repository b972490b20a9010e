// The LibTorch adapter against formulas composed of torch's own operations.
#include <grpo/adapt/torch.hpp>

#include <doctest/doctest.h>

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
