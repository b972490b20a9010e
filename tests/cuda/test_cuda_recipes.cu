// Every recipe on every shape and storage: all of them compiled, and run each on one after the other, as the CPU does.
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/recipe.hpp>

#include <cuda/on_device.cuh>
#include <support/random_batch.hpp>

namespace {

// Rows of 23 tokens, 26 apart; with offsets instead of a stride, of any length.
constexpr std::int64_t rows = 5, width = 23, stride = 26;

random_batch::arrays<float> numbers() { return random_batch::make<float>({3, 0, 17, 1, 8, 29, 72}, 17); }

// The same numbers in storage of another type.
template <class T>
std::vector<T> as(const std::vector<float>& x) {
    std::vector<T> y;
    for (const float v : x) y.push_back(T(v));
    return y;
}

template <class T>
struct world {
    random_batch::arrays<float> a = numbers();
    std::vector<T> logp = as<T>(a.logp), entropy = as<T>(a.entropy), value = as<T>(a.value), logp_old = as<T>(a.logp_old),
                   logp_ref = as<T>(a.logp_ref), logp_rollout = as<T>(a.logp_rollout), advantage = as<T>(a.advantage),
                   weight = as<T>(a.weight), keep = as<T>(a.keep), label = as<T>(a.label), value_old = as<T>(a.value_old),
                   returns = as<T>(a.returns);

    template <class Shape>
    auto batch(const Shape& shape) const {
        const auto first = [&](const std::vector<T>& x) { return grpo::view<const T>(x.data(), shape.extent()); };
        return grpo::batch(shape, grpo::logp(first(logp)), grpo::entropy(first(entropy)), grpo::values(first(value)),
                           grpo::logp_old(first(logp_old)), grpo::logp_ref(first(logp_ref)), grpo::logp_rollout(first(logp_rollout)),
                           grpo::advantage(first(advantage)), grpo::weight(first(weight)), grpo::keep(first(keep)),
                           grpo::label(first(label)), grpo::values_old(first(value_old)), grpo::returns(first(returns)));
    }
};

template <class Objective, class T, class Shape>
void compare(const on_device::session& device, const Objective& loss, const world<T>& w, const Shape& shape) {
    using G = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const double n = loss.over.denominator(grpo::count(shape));
    const auto on = [&](const auto& exec, std::vector<G> (&slopes)[3]) {
        for (auto& x : slopes) x.assign(static_cast<std::size_t>(shape.extent()), G(7));
        return random_batch::arrived(grpo::evaluate(exec, loss, w.batch(shape), n, grpo::d_logp(slopes[0]), grpo::d_entropy(slopes[1]),
                                                    grpo::d_values(slopes[2])));
    };
    std::vector<G> there[3], here[3];
    const grpo::loss_result got = on(device.gpu(), there), expected = on(grpo::serial{}, here);
    CHECK(on_device::close(got.loss(n), expected.loss(n), 1e-6));
    CHECK(on_device::close(got.weight, expected.weight, 1e-12));
    CHECK(got.count.tokens == expected.count.tokens);
    CHECK(got.nonfinite == expected.nonfinite);
    for (int k = 0; k < 3; ++k) CHECK(on_device::difference(there[k], here[k], 1e-6) == "");
}

// One of the four; the others are compiled.
template <class Objective, class T>
void on_shapes(const on_device::session& device, const Objective& loss, const world<T>& w, int which) {
    const grpo::padded padded(rows, width, stride);
    const auto ragged = grpo::ragged(grpo::view<const std::int64_t>(w.a.cu), w.a.cu.back());
    const grpo::view<const std::uint8_t> mask(w.a.mask.data(), padded.extent());
    if (which == 0) compare(device, loss, w, padded);
    if (which == 1) compare(device, loss, w, padded.where(mask));
    if (which == 2) compare(device, loss, w, ragged);
    if (which == 3) compare(device, loss, w, ragged.where(w.a.mask));
}

TEST_CASE("every recipe on every shape and storage is the CPU's") {
    const on_device::session device;
    const world<float> single;
    const world<double> twice;
    const world<grpo::bfloat16> bfloat;
    const world<grpo::float16> half;
    int turn = 0;
    grpo::recipe::for_each([&](const auto& r) {
        if constexpr ((std::remove_cvref_t<decltype(r.objective.term)>::needs & grpo::input::chosen::bit) == 0) {
            INFO(r.name << ", " << turn);
            const int shape = turn / 4 % 4;
            on_shapes(device, r.objective, single, turn % 4 == 0 ? shape : -1);
            on_shapes(device, r.objective, twice, turn % 4 == 1 ? shape : -1);
            on_shapes(device, r.objective, bfloat, turn % 4 == 2 ? shape : -1);
            on_shapes(device, r.objective, half, turn % 4 == 3 ? shape : -1);
            ++turn;
        }
    });
    CHECK(turn == grpo::recipe::cards().size - 1);
}

}  // namespace
