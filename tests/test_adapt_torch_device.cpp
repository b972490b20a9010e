// The LibTorch adapter's way with an executor that comes with its tensors' device: here the CPU's, walked as a device would.
#include <grpo/adapt/torch.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <torch/csrc/autograd/autograd.h>

#include <support/adapted.hpp>
#include <support/elsewhere.hpp>

namespace {

using adapted::sentence;
using at::Tensor;
namespace lt = grpo::libtorch;

int calls = 0;

struct on_elsewhere {
    struct site {
        elsewhere<4> exec{};
        at::Device where;

        at::Device device() const { return where; }
        const elsewhere<4>& executor(std::int64_t) const {
            ++calls;
            return exec;
        }
    };
    site for_tensors(const char*, const char*, const Tensor& like) const { return {{}, like.device()}; }
};

constexpr std::int64_t rows = 3, width = 5, vocabulary = 37;
Tensor normal(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
    return at::randn(sizes, at::kDouble).to(type);
}

struct example {
    Tensor mask, logp, old, ref, values, returns, advantage, targets, logits, hidden, weight, bias;

    example() {
        at::manual_seed(7);
        mask = at::rand({rows, width}).gt(0.3);
        mask[0][1] = true;
        logp = (normal({rows, width}) - 3).requires_grad_(true);
        values = normal({rows, width}).requires_grad_(true);
        old = logp.detach() + 0.3 * normal({rows, width});
        ref = logp.detach() + 0.3 * normal({rows, width});
        returns = normal({rows, width});
        advantage = normal({rows});
        targets = at::randint(vocabulary, {rows, width}, at::kLong);
        logits = normal({rows, width, vocabulary}).requires_grad_(true);
        hidden = normal({rows, width, 7}).requires_grad_(true);
        weight = normal({vocabulary, 7}).requires_grad_(true);
        bias = normal({vocabulary}).requires_grad_(true);
    }
    lt::token_tensors tokens() const {
        return {.logp = logp,
                .values = values,
                .logp_old = old,
                .logp_ref = ref,
                .advantage = advantage,
                .values_old = values.detach(),
                .returns = returns,
                .mask = mask};
    }
    lt::token_tensors beside_head() const {
        lt::token_tensors x = tokens();
        x.logp = Tensor();
        return x;
    }
};

void check_close(const Tensor& a, const Tensor& b) {
    REQUIRE((a.sizes() == b.sizes()));
    REQUIRE((a.scalar_type() == b.scalar_type()));
    CHECK((a - b).abs().max().item<double>() <= 2e-6 * b.abs().max().item<double>());
}
// f(exec): a loss. With this executor and on the host, by its value, its counts and the gradients of some tensors.
template <class F>
void check(const std::vector<Tensor>& of, const F& f) {
    const lt::loss host = f(grpo::serial{});
    const int before = calls;
    const lt::loss there = f(on_elsewhere{});
    CHECK(calls > before);
    check_close(there.value, host.value);
    CHECK(there.sums.count.tokens == host.sums.count.tokens);
    CHECK(there.sums.sum == doctest::Approx(host.sums.sum).epsilon(1e-6));
    const auto wanted = torch::autograd::grad({host.value * 2}, of), got = torch::autograd::grad({there.value * 2}, of);
    for (std::size_t k = 0; k < of.size(); ++k) check_close(got[k], wanted[k]);
}

}  // namespace

TEST_CASE("losses of tokens and of pairs, by an executor that comes with the tensors") {
    const example e;
    const auto whole = grpo::objective{grpo::clipped{} + 0.1 * grpo::kl{} + 0.5 * grpo::value_loss{},
                                       grpo::aggregation::sequence_mean()};
    check({e.logp, e.values}, [&](const auto& exec) { return lt::evaluate(whole, e.tokens(), {}, exec); });
    const auto coupled = grpo::objective{grpo::gspo{}, grpo::aggregation::token_mean()};
    check({e.logp}, [&](const auto& exec) { return lt::evaluate(coupled, e.tokens(), 11.0, exec); });
    const Tensor cu = at::tensor({0, 4, 4, 15}, at::kInt);
    const auto flat = [&](const Tensor& x) { return x.view({-1}); };
    check({e.logp}, [&](const auto& exec) {
        return lt::evaluate(coupled,
                            {.logp = flat(e.logp), .logp_old = flat(e.old), .advantage = e.advantage, .cu_seqlens = cu},
                            {}, exec);
    });
    const auto pairs = grpo::objective{grpo::dpo{.beta = 0.1}, grpo::aggregation::token_mean()};
    const Tensor rejected = normal({rows, width}).requires_grad_(true);
    check({e.logp, rejected}, [&](const auto& exec) {
        return lt::evaluate(pairs, {.chosen = e.logp, .rejected = rejected, .ref_chosen = e.old, .ref_rejected = e.ref},
                            {}, exec);
    });
}

TEST_CASE("from logits, in memory of their own and in place, and log-probabilities alone") {
    const example e;
    const auto whole = grpo::objective{grpo::clipped{} + 0.01 * grpo::entropy_bonus{} + 0.5 * grpo::value_loss{},
                                       grpo::aggregation::token_mean()};
    check({e.logits, e.values}, [&](const auto& exec) {
        return lt::evaluate_logits(whole, e.logits, e.targets, {.temperature = 0.7}, e.beside_head(), {}, exec);
    });
    check({e.logits}, [&](const auto& exec) {
        return lt::evaluate_logits(whole, e.logits * 1, e.targets, {.in_place = true}, e.beside_head(), {}, exec);
    });
    check({e.logits}, [&](const auto& exec) {
        const auto selected = lt::token_logp(e.logits, e.targets, {.mask = e.mask}, true, exec);
        return lt::loss{(selected.logp + 0.5 * selected.entropy).sum(), {}};
    });
}

TEST_CASE("from hidden states, in chunks") {
    const example e;
    const auto loss = grpo::objective{grpo::clipped{} + 0.1 * grpo::kl{}, grpo::aggregation::token_mean()};
    auto x = e.beside_head();
    x.values = Tensor();
    check({e.hidden, e.weight, e.bias}, [&](const auto& exec) {
        return lt::evaluate_hidden(loss, e.hidden, e.weight, e.targets, {.bias = e.bias, .chunk = 4}, x, {},
                                   grpo::plain_gemm{}, exec);
    });
}

TEST_CASE("advantages, GAE, whitening and process supervision") {
    const example e;
    const auto same = [](const auto& f) {
        const int before = calls;
        const std::vector<Tensor> host = f(grpo::serial{}), there = f(on_elsewhere{});
        CHECK(calls > before);
        for (std::size_t k = 0; k < host.size(); ++k) check_close(there[k], host[k]);
    };
    const Tensor reward = e.returns, value = e.values.detach(), six = normal({6}).contiguous();
    same([&](const auto& exec) {
        const auto r = lt::gae({.reward = reward, .value = value, .mask = e.mask}, {.gamma = 0.9}, exec);
        return std::vector{r.advantage, r.returns};
    });
    same([&](const auto& exec) { return std::vector{lt::whiten(reward, e.mask, {}, exec)}; });
    for (const char* name : {"rloo", "gpg", "pass_at_k", "reinforce", "areal"}) {  // the last cuts rewards
        CAPTURE(name);
        same([&](const auto& exec) { return std::vector{lt::advantages(grpo::recipe::advantages(name), six, 3, exec)}; });
    }
    for (const char* name : {"grpo", "opo"}) {
        CAPTURE(name);
        same([&](const auto& exec) {
            const auto rule = grpo::recipe::advantages(name);
            const auto r = lt::advantages(rule, {.rewards = normal({rows}) * 0 + six.slice(0, 0, rows), .mask = e.mask}, 3, exec);
            return std::vector{r.advantage, r.returns};
        });
    }
    const Tensor steps = at::tensor({0, 2, 3, 5}, at::kLong), end = at::tensor({1, 4, 2, 0, 3}, at::kLong);
    same([&](const auto& exec) {
        return std::vector{lt::process_supervision(
            {.offsets = steps, .end = end, .reward = six.slice(0, 0, 5), .mask = at::ones({rows, width})}, 3, {}, exec)};
    });
}

TEST_CASE("tensors of two devices are named with both") {
    const example e;
    const auto loss = grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()};
    const Tensor meta = at::empty({rows, width}, at::TensorOptions(at::kFloat).device(at::kMeta));
    CHECK(sentence([&] {
              lt::evaluate(loss, {.logp = e.logp, .logp_old = meta, .advantage = e.advantage}, {}, on_elsewhere{});
          }) == "grpo::libtorch::evaluate: logp_old is on the device meta, but the adapter computes on the CPU");
    CHECK(sentence([&] {
              lt::evaluate(loss, {.logp = meta, .logp_old = e.old, .advantage = e.advantage}, {}, on_elsewhere{});
          }) == "grpo::libtorch::evaluate: logp_old is on the device cpu, but the adapter computes on meta");
}
