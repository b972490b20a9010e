// The LibTorch adapter from logits, against formulas composed of torch's own operations in double.
#include <grpo/adapt/torch.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include <doctest/doctest.h>
#include <torch/csrc/autograd/autograd.h>
#if __has_include(<torch/version.h>)
#include <torch/version.h>
#endif

#include <support/adapted.hpp>

namespace {

using adapted::sentence;
using at::Tensor;
namespace lt = grpo::libtorch;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t rows = 3, width = 5, vocabulary = 37;

double difference(const Tensor& a, const Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}
Tensor normal(at::IntArrayRef sizes, at::ScalarType type, double scale = 1) {
    return at::randn(sizes, at::kDouble).mul_(scale).to(type);
}
// A loss that reads NaN has no gradient that could be compared: masked rows are 0 for torch.
Tensor visible(const Tensor& logits, const Tensor& mask) {
    return logits.masked_fill(mask.logical_not().unsqueeze(-1), 0.0);
}
Tensor log_policy(const Tensor& logits, const lt::logits_options& o) {
    const std::int64_t columns = o.vocabulary == 0 ? logits.size(-1) : o.vocabulary;
    Tensor z = logits.slice(-1, 0, columns);
    if (o.bias.defined()) z = z + o.bias.to(at::kDouble);
    z = z * o.scale;
    if (o.softcap > 0) z = o.softcap * (z / o.softcap).tanh();
    return (z / o.temperature).log_softmax(-1);
}
Tensor at_targets(const Tensor& all, const Tensor& targets) {
    return all.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
}
Tensor entropy_of(const Tensor& all) {
    return -(all.exp() * all).sum(-1);
}
Tensor clipped(const Tensor& logp, const Tensor& old, const Tensor& a) {
    const Tensor ratio = (logp - old).exp();
    return -at::min(ratio * a, ratio.clamp(0.8, 1.2) * a);
}
Tensor mean(const Tensor& each, const Tensor& mask) {
    return (each * mask).sum() / mask.sum();
}
Tensor gradient(const Tensor& value, const Tensor& x, bool keep = false) {
    return torch::autograd::grad({value}, {x}, {}, keep)[0];
}

// A batch with masked rows of NaN, whose inputs have the logits' type, or float where that has 16 bits.
struct example {
    at::ScalarType type, compute;
    Tensor mask = at::rand({rows, width}).gt(0.25);
    Tensor targets = at::randint(29, {rows, width}, at::kLong);
    Tensor logits, old, advantage;

    explicit example(at::ScalarType t) : type(t), compute(t == at::kDouble ? at::kDouble : at::kFloat) {
        mask[0][0] = false;
        mask[1][1] = true;
        logits = normal({rows, width, vocabulary}, type, 2);
        old = normal({rows, width}, compute, 0.2) - 3.3;
        advantage = normal({rows}, compute);
        logits.masked_fill_(mask.logical_not().unsqueeze(-1), nan);
        targets.masked_fill_(mask.logical_not(), -7);
        logits.requires_grad_(true);
    }
    lt::token_tensors inputs() const { return {.logp_old = old, .advantage = advantage, .mask = mask}; }
    Tensor wide() const { return visible(logits.detach(), mask).to(at::kDouble).requires_grad_(true); }
    Tensor ids() const { return targets.clamp_min(0); }
    Tensor surrogate(const Tensor& all) const {
        return clipped(at_targets(all, ids()), old.to(at::kDouble), advantage.to(at::kDouble).unsqueeze(1));
    }
    Tensor counted() const { return mask.to(at::kDouble); }
};

// Relative to the largest entry of a gradient.
double tolerance(at::ScalarType type) {
    return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-6 : type == at::kHalf ? 1.0 / 1024 : 1.0 / 128;
}

const grpo::objective clip{grpo::clipped{}, grpo::aggregation::token_mean()};

// Bytes that LibTorch has allocated on the CPU since the meter began: the most at one time.
struct meter : c10::MemoryReportingInfoBase {
    std::int64_t now = 0, peak = 0;

#if defined(TORCH_VERSION_MAJOR) && (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 1))
    using total = std::size_t;
#else
    using total = std::int64_t;
#endif
    void reportMemoryUsage(void*, std::int64_t bytes, total, total, c10::Device) override {
        now += bytes;
        peak = std::max(peak, now);
    }
    bool memoryProfilingEnabled() const override {
        return true;
    }
};

template <class F>
std::int64_t peak_of(F&& f) {
    const auto m = std::make_shared<meter>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, m);
    f();
    return m->peak;
}

}  // namespace

TEST_CASE("value and gradient from logits of each type, under every option: those of composed torch") {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
        at::manual_seed(1);
        const example e(type);
        const Tensor bias = normal({29}, at::kFloat, 0.5);
        const lt::logits_options every[] = {
            {}, {.temperature = 0.7}, {.temperature = 1.3, .scale = 0.5, .softcap = 3, .bias = bias, .vocabulary = 29}};
        for (const lt::logits_options& options : every) {
            const grpo::objective o{grpo::clipped{} + 0.1 * grpo::entropy_bonus{}, grpo::aggregation::token_mean()};
            const auto r = lt::evaluate_logits(o, e.logits, e.targets, options, e.inputs());
            const Tensor ours = gradient(r.value.mul(-2.5), e.logits);
            const Tensor wide = e.wide();
            const Tensor all = log_policy(wide, options);
            const Tensor value = mean(e.surrogate(all) - 0.1 * entropy_of(all), e.counted());
            const Tensor expected = gradient(value.mul(-2.5), wide);
            CHECK(difference(r.value, value) < (type == at::kDouble ? 1e-12 : 1e-5));
            CHECK(difference(ours, expected) < tolerance(type) * expected.abs().max().item<double>());
            CHECK((ours.scalar_type() == type));
            CHECK(ours.masked_select(e.mask.logical_not().unsqueeze(-1)).eq(0).all().item<bool>());
            if (options.vocabulary != 0) CHECK(ours.slice(-1, 29).eq(0).all().item<bool>());
        }
    }
}

TEST_CASE("token_logp from logits of each type: composed torch forwards and backwards; masked rows are not read") {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
        at::manual_seed(2);
        const example e(type);
        const Tensor weights = normal({rows, width}, at::kDouble);
        for (const bool with_entropy : {false, true}) {
            const auto sum = [&](const Tensor& logp, const Tensor& entropy) {
                const Tensor first = (logp * weights * e.counted()).sum();
                return with_entropy ? first + (entropy.square() * e.counted()).sum() : first;
            };
            const lt::logits_options options{
                .temperature = 0.8, .softcap = 4, .bias = normal({vocabulary}, at::kFloat), .mask = e.mask};
            const auto s = lt::token_logp(e.logits, e.targets, options, with_entropy);
            const Tensor ours = gradient(sum(s.logp, s.entropy), e.logits);
            const Tensor wide = e.wide();
            const Tensor all = log_policy(wide, options);
            const Tensor expected = gradient(sum(at_targets(all, e.ids()), entropy_of(all)), wide);
            const Tensor logp = at_targets(all, e.ids()) * e.counted();
            CHECK(difference(s.logp, logp) < (type == at::kDouble ? 1e-12 : 1e-5));
            CHECK((s.logp.scalar_type() == e.compute));
            CHECK(s.entropy.defined() == with_entropy);
            if (with_entropy) CHECK(difference(s.entropy, entropy_of(all) * e.counted()) < 1e-5);
            CHECK(difference(ours, expected) < tolerance(type) * expected.abs().max().item<double>());
            CHECK(ours.masked_select(e.mask.logical_not().unsqueeze(-1)).eq(0).all().item<bool>());
        }
    }
}

TEST_CASE("the exact KL to a reference's logits, alone and beside a loss: torch's difference of log_softmax") {
    for (const auto type : {at::kDouble, at::kFloat}) {
        at::manual_seed(3);
        const example e(type);
        const Tensor reference = (e.logits.detach() + normal({rows, width, vocabulary}, type)).contiguous();
        const grpo::objective o{grpo::clipped{} + 0.3 * grpo::exact_kl{}, grpo::aggregation::token_mean()};
        const lt::logits_options options{.temperature = 1.5, .logits_ref = reference};
        const auto r = lt::evaluate_logits(o, e.logits, e.targets, options, e.inputs());
        const Tensor ours = gradient(r.value, e.logits);
        const Tensor wide = e.wide();
        const Tensor all = log_policy(wide, options);
        const Tensor of_reference = log_policy(visible(reference, e.mask).to(at::kDouble), options);
        const Tensor kl = (all.exp() * (all - of_reference)).sum(-1);
        const Tensor value = mean(e.surrogate(all) + 0.3 * kl, e.counted());
        const Tensor expected = gradient(value, wide);
        CHECK(difference(r.value, value) < (type == at::kDouble ? 1e-12 : 1e-5));
        CHECK(difference(ours, expected) < tolerance(type) * expected.abs().max().item<double>());
    }
}

TEST_CASE("a loss that couples a sequence, and a critic beside the policy: both gradients are those of torch") {
    at::manual_seed(4);
    const example e(at::kDouble);
    const Tensor values = normal({rows, width}, at::kDouble).requires_grad_(true);
    const Tensor returns = normal({rows, width}, at::kDouble);
    lt::token_tensors x = e.inputs();
    x.values = values;
    x.values_old = values.detach();
    x.returns = returns;
    const Tensor reference = normal({rows, width, vocabulary}, at::kDouble);
    const grpo::objective o{grpo::clipped{} + 0.5 * grpo::value_loss{.factor = 1} + 0.2 * grpo::exact_kl{},
                            grpo::aggregation::token_mean()};
    const auto r = lt::evaluate_logits(o, e.logits, e.targets, {.logits_ref = reference}, x);
    const auto ours = torch::autograd::grad({r.value.mul(3)}, {e.logits, values});
    const Tensor wide = e.wide();
    const Tensor all = log_policy(wide, {});
    const Tensor kl = (all.exp() * (all - log_policy(reference, {}))).sum(-1);
    const Tensor value = mean(e.surrogate(all) + 0.5 * (values - returns).square() + 0.2 * kl, e.counted());
    const auto expected = torch::autograd::grad({value.mul(3)}, {wide, values});
    CHECK(difference(r.value, value) < 1e-12);
    CHECK(difference(ours[0], expected[0]) < 1e-12);
    CHECK(difference(ours[1], expected[1]) < 1e-12);
    CHECK(expected[1].abs().max().item<double>() > 1e-3);

    const grpo::objective coupled{grpo::gspo{.low = 0.2, .high = 0.2}, grpo::aggregation::sequence_mean()};
    const Tensor of_sequences =
        gradient(lt::evaluate_logits(coupled, e.logits, e.targets, {}, e.inputs()).value, e.logits);
    const Tensor n = e.counted().sum(1);
    const Tensor log_ratio = (at_targets(log_policy(wide, {}), e.ids()) - e.old) * e.counted();
    const Tensor ratio = (log_ratio.sum(1) / n).exp();
    const Tensor a = e.advantage;
    CHECK(difference(of_sequences, gradient(-at::min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean(), wide)) < 1e-12);
}

TEST_CASE("a critic alone: its gradient comes without one of the logits") {
    at::manual_seed(5);
    const example e(at::kFloat);
    const Tensor values = normal({rows, width}, at::kFloat).requires_grad_(true);
    lt::token_tensors x = e.inputs();
    x.values = values;
    x.values_old = values.detach();
    x.returns = at::zeros({rows, width});
    const grpo::objective o{grpo::clipped{} + grpo::value_loss{.factor = 1}, grpo::aggregation::token_mean()};
    const auto r = lt::evaluate_logits(o, e.logits.detach(), e.targets, {.in_place = true}, x);
    const Tensor expected = 2 * values.detach().to(at::kDouble) * e.counted() / e.counted().sum();
    CHECK(difference(gradient(r.value, values), expected) < 1e-6);
    CHECK(e.logits.isnan().any().item<bool>());
}

TEST_CASE("a graph that is kept gives the same gradient again; one that is not is gone, as torch says") {
    at::manual_seed(6);
    const example e(at::kDouble);
    const Tensor z = e.logits * 1;
    const Tensor value = lt::evaluate_logits(clip, z, e.targets, {}, e.inputs()).value.mul(0.25);
    const Tensor first = gradient(value, e.logits, true);
    const Tensor kept = first.clone();
    first.mul_(7);
    CHECK(at::equal(gradient(value, e.logits, true), kept));
    CHECK(at::equal(gradient(value, e.logits), kept));
    CHECK_THROWS_WITH_AS(gradient(value, e.logits), doctest::Contains("second time"), std::exception);
}

TEST_CASE("an upstream gradient reaches 16-bit logits unrounded") {
    at::manual_seed(7);
    for (const auto type : {at::kBFloat16, at::kHalf}) {
        const example e(type);
        const auto loss = [&] { return lt::evaluate_logits(clip, e.logits, e.targets, {}, e.inputs()).value; };
        const Tensor whole = gradient(loss(), e.logits);
        const Tensor third = gradient(loss().div(3), e.logits);
        CHECK(at::equal(third, (whole.to(at::kFloat) * (1.0f / 3.0f)).to(type)));
    }
}

TEST_CASE("in place: the same bits, in the logits' own memory, which counts as modified") {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
        at::manual_seed(8);
        const example e(type);
        const auto run = [&](const Tensor& z, bool in_place, double upstream) {
            return lt::evaluate_logits(clip, z, e.targets, {.temperature = 0.9, .in_place = in_place}, e.inputs())
                .value.mul(upstream);
        };
        const Tensor expected = gradient(run(e.logits, false, 1), e.logits);
        const Tensor z = e.logits + 0;
        const auto version = z._version();
        const Tensor value = run(z, true, 1);
        CHECK(z._version() == version + 1);
        CHECK(at::equal(z, expected));
        const Tensor ours = gradient(value, z, true);
        CHECK(at::equal(ours, expected));
        CHECK(ours.data_ptr() != z.data_ptr());
        const Tensor last = gradient(value, z);
        CHECK(last.data_ptr() == z.data_ptr());
        CHECK(at::equal(last, expected));

        const Tensor whole = e.logits + 0;
        CHECK(at::equal(gradient(run(whole.view({rows, width, vocabulary}), true, 4), e.logits), expected * 4));
        const Tensor late = e.logits + 0;
        const Tensor broken = run(late, true, 1);
        late.detach().add_(1);
        CHECK_THROWS_WITH_AS(gradient(broken, e.logits), doctest::Contains("modified by an inplace operation"),
                             std::exception);
    }
}

TEST_CASE("in place is refused where memory is not the caller's to give up; options have their places") {
    at::manual_seed(9);
    const example e(at::kFloat);
    const auto run = [&](const Tensor& logits, const Tensor& targets, const lt::logits_options& options) {
        return sentence([&] { lt::evaluate_logits(clip, logits, targets, options, e.inputs()); });
    };
    const std::string begins = "grpo::libtorch::evaluate_logits: ";
    const std::string leaf =
        begins + "logits is a leaf that requires a gradient, or a view of one: in_place would overwrite it";
    CHECK(run(e.logits, e.targets, {.in_place = true}) == leaf);
    CHECK(run(e.logits.view({rows, width, vocabulary}), e.targets, {.in_place = true}) == leaf);
    const Tensor strided = (e.logits + 0).transpose(1, 2).contiguous().transpose(1, 2);
    CHECK(run(strided, e.targets, {.in_place = true}) ==
          begins + "logits of shape [3, 5, 37] is not contiguous, so that in_place cannot write to it");
    CHECK(run(e.logits, e.targets, {.mask = e.mask}) ==
          begins + "options.mask is given, but a loss has its batch's mask");
    CHECK(run(e.logits, e.targets, {.bias = at::zeros({4})}) == begins + "bias has 4 entries, but the batch has 37 columns");
    CHECK(adapted::contains(run(e.logits, e.targets, {.bias = at::zeros({37}).requires_grad_(true)}), "detach() it"));
    const grpo::objective with_kl{grpo::exact_kl{}, grpo::aggregation::token_mean()};
    const auto of_kl = [&](const lt::logits_options& options, const Tensor& z) {
        return sentence([&] { lt::evaluate_logits(with_kl, z, e.targets, options, e.inputs()); });
    };
    CHECK(of_kl({}, e.logits) == begins + "logits_ref is missing, but the loss reads it");
    CHECK(of_kl({.logits_ref = at::zeros({3, 5, 36})}, e.logits) ==
          begins + "logits_ref is [3, 5, 36] of type Float, but the logits are [3, 5, 37] of type Float");
    const Tensor z = e.logits + 0;
    CHECK(of_kl({.logits_ref = z.detach(), .in_place = true}, z) ==
          begins + "logits_ref lies in the logits' memory, which in_place would overwrite");
    CHECK(sentence([&] { lt::token_logp(e.logits, e.targets, {.in_place = true}); }) ==
          "grpo::libtorch::token_logp: in_place is for evaluate_logits() alone");
    CHECK(at::equal(z.isnan(), e.logits.isnan()));
}

TEST_CASE("changed logits: token_logp's backward pass reads them and notices, evaluate_logits' needs them no more") {
    at::manual_seed(10);
    const example e(at::kDouble);
    const Tensor expected = gradient(lt::evaluate_logits(clip, e.logits, e.targets, {}, e.inputs()).value, e.logits);
    const Tensor z = e.logits * 1;
    const Tensor logp = lt::token_logp(z, e.targets, {.mask = e.mask}).logp.sum();
    const Tensor value = lt::evaluate_logits(clip, z, e.targets, {}, e.inputs()).value;
    z.detach().add_(1);
    CHECK(at::equal(gradient(value, e.logits), expected));
    CHECK_THROWS_WITH_AS(gradient(logp, e.logits), doctest::Contains("modified by an inplace operation"),
                         std::exception);
}

TEST_CASE("logits in any strides, and float64 inputs beside float32 logits") {
    at::manual_seed(11);
    const example e(at::kFloat);
    lt::token_tensors x = e.inputs();
    x.logp_old = e.old.to(at::kDouble);
    const auto r = lt::evaluate_logits(clip, e.logits, e.targets, {}, x);
    CHECK((r.value.scalar_type() == at::kDouble));
    const Tensor expected = gradient(r.value, e.logits);
    CHECK((expected.scalar_type() == at::kFloat));
    const Tensor strided = e.logits.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_(true);
    CHECK_FALSE(strided.is_contiguous());
    CHECK(at::equal(gradient(lt::evaluate_logits(clip, strided, e.targets, {}, x).value, strided), expected));
}

TEST_CASE("memory: forwards and backwards take one array of the logits' size; in place and for the value alone, none") {
    at::manual_seed(12);
    constexpr std::int64_t tokens = 64, columns = 4096, array = tokens * columns * 4;
    const Tensor logits = normal({1, tokens, columns}, at::kFloat).requires_grad_(true);
    const Tensor z = logits + 0;
    const Tensor targets = at::zeros({1, tokens}, at::kLong);
    const lt::token_tensors x{.logp_old = at::full({1, tokens}, -8.0f), .advantage = at::ones({1})};
    // The workspace has a row of the vocabulary, and some 100 bytes a token.
    constexpr std::int64_t more = 4 * columns + 200 * tokens + 4096;
    // Gradients of z, so that nothing of torch's own is counted.
    for (const double upstream : {1.0, 0.5}) {
        const auto pass = [&](bool in_place) {
            gradient(lt::evaluate_logits(clip, z, targets, {.in_place = in_place}, x).value.mul(upstream), z);
        };
        const std::int64_t taken = peak_of([&] { pass(false); });
        CHECK(taken >= array);
        CHECK(taken < array + more);
        const Tensor before = z.detach().clone();
        CHECK(peak_of([&] { pass(true); }) < more);
        z.detach().copy_(before);
    }
    CHECK(peak_of([&] { gradient(lt::token_logp(z, targets).logp.sum(), z); }) < array + more);
    CHECK(peak_of([&] {
              const at::NoGradGuard without;
              lt::evaluate_logits(clip, z, targets, {}, x);
          }) < more);
    // A leaf's gradient is that very memory.
    CHECK(peak_of([&] { lt::evaluate_logits(clip, logits, targets, {}, x).value.backward(); }) < array + more);
    CHECK(logits.grad().defined());
}
