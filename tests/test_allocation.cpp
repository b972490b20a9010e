// Nothing is allocated behind the caller's back: every allocation of the program is counted.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/advantage.hpp>
#include <grpo/exec/simd.hpp>
#include <grpo/grpo.hpp>

#include <support/random_batch.hpp>

namespace {
long allocations = 0;

void* counted(std::size_t size) {
    allocations += 1;
    void* p = std::malloc(size == 0 ? 1 : size);
    if (p == nullptr) std::abort();
    return p;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void* operator new(std::size_t size, std::align_val_t align) {
    allocations += 1;
    const std::size_t unit = static_cast<std::size_t>(align);
    return std::aligned_alloc(unit, (size + unit - 1) / unit * unit);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

template <class F>
long during(F&& f) {
    const long before = allocations;
    f();
    return allocations - before;
}

TEST_CASE("the counter counts") {
    CHECK(during([] { std::vector<int> v(3); }) == 1);
}

TEST_CASE_TEMPLATE("evaluating a loss and its gradient allocates nothing", Exec, grpo::serial, grpo::simd) {
    const random_batch::arrays<float> a = random_batch::make<float>({5, 0, 33, 17}, 1);
    std::vector<float> g(a.tokens()), h(a.tokens());
    const auto check = [&](const auto& term) {
        for (const auto policy : {grpo::nonfinite::report, grpo::nonfinite::skip}) {
            const auto loss = grpo::objective{term, grpo::aggregation::sequence_mean(), policy}.diagnosed();
            const auto batch = a.batch();
            grpo::loss_result r;
            CHECK(during([&] { r = grpo::evaluate(Exec{}, loss, batch, 7.0, grpo::d_logp(g), grpo::d_entropy(h).add()); }) == 0);
            CHECK(r.count.tokens > 0);
        }
    };
    check(grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{});
    check(grpo::gspo{} * grpo::kl{});
}

TEST_CASE_TEMPLATE("R1.40 log-probabilities, gradients and losses of logits allocate nothing", Exec, grpo::serial, grpo::simd) {
    const random_batch::arrays<float> a = random_batch::make<float>({5, 0, 33, 17}, 3);
    const auto n = static_cast<std::int64_t>(a.tokens());
    const std::int64_t vocabulary = 100;
    std::vector<float> z(a.tokens() * 100, 0.5f), logp(a.tokens()), entropy(a.tokens()), gradient(z.size());
    const std::vector<int> target(a.tokens(), 7);
    std::vector<std::byte> memory(static_cast<std::size_t>(grpo::evaluate_logits_workspace(1, n, vocabulary)));
    const auto in = grpo::logits(z, n, vocabulary);
    CHECK(during([&] {
        grpo::token_logp(Exec{}, in, target, {}, grpo::view(logp), grpo::view(entropy));
        grpo::d_logits(Exec{}, in, target, {}, grpo::view<const float>(logp), grpo::view<const float>(entropy),
                       grpo::view(gradient));
    }) == 0);
    const grpo::batch batch(a.shape(), grpo::logp_old(a.logp_old), grpo::logp_ref(a.logp_ref), grpo::advantage(a.advantage));
    const auto check = [&](const auto& term) {
        const grpo::objective loss{term, grpo::aggregation::sequence_mean()};
        grpo::loss_result r;
        CHECK(during([&] {
            r = grpo::evaluate_logits(Exec{}, loss, in, target, {}, batch, 7.0, grpo::view(gradient), grpo::view(memory));
        }) == 0);
        CHECK(r.count.tokens > 0);
    };
    check(grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{});
    check(grpo::gspo{});
}

TEST_CASE("counting, masks and the sentence of a mistake allocate nothing") {
    const random_batch::arrays<float> a = random_batch::make<float>({5, 0, 33, 17}, 2);
    std::vector<float> few(3);
    grpo::totals t;
    CHECK(during([&] { t = grpo::count(a.shape()); }) == 0);
    CHECK(t.sequences == 4);
    grpo::loss_result r;
    grpo::problem p;
    const auto batch = a.batch();
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    CHECK(during([&] { p = grpo::try_accumulate(r, grpo::serial{}, loss, batch, 1.0, grpo::d_logp(few)); }) == 0);
    CHECK(static_cast<bool>(p));
}

TEST_CASE("advantages, returns and whitening allocate nothing") {
    const random_batch::arrays<double> a = random_batch::make<double>({4, 4, 4, 4}, 3);
    const auto shape = a.shape();
    const std::vector<double> reward{0, 1, 1, 0.5};
    std::vector<double> advantage(4), x(a.tokens()), y(a.tokens());
    grpo::gae_inputs<double> in;
    in.reward = a.returns;
    in.value = a.value;
    CHECK(during([&] {
        grpo::group_normalised(grpo::padded(2, 2), reward, advantage, {});
        grpo::gae(shape, in, {.gamma = 0.9, .lambda = 0.9}, x, y);
        grpo::discounted_returns(shape, 0.9, a.returns, y);
        grpo::whiten(shape, x, x);
    }) == 0);
}

}  // namespace
