// Batches whose log-probabilities come from logits, for tests of evaluate_logits().
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/storage.hpp>

#include <support/random_batch.hpp>

namespace head_loss_cases {

// Logits of π and π_ref with a batch about them: old, reference and rollout log-probabilities are near those of the logits.
// T: of the logits; S: of the batch's inputs.
template <class T, class S = double>
struct world {
    random_batch::arrays<S> a;
    std::int64_t vocabulary, stride;
    std::vector<T> z, ref;
    std::vector<std::int32_t> target;
    grpo::head_options options{.temperature = 0.7};

    world(const std::vector<int>& lengths, std::int64_t v, std::int64_t apart = 0, std::uint64_t seed = 5, double active = 0.75)
        : a(random_batch::make<S>(lengths, seed, active)), vocabulary(v), stride(apart == 0 ? v : apart) {
        random_batch::source random(seed + 1000);
        const std::int64_t n = rows();
        const auto extent = static_cast<std::size_t>(grpo::padded(n, vocabulary, stride).extent());
        z.assign(extent, T(std::numeric_limits<double>::quiet_NaN()));
        ref = z;
        for (std::int64_t i = 0; i < n; ++i) {
            const auto k = static_cast<std::size_t>(i);
            long double sum = 0;
            for (std::int64_t c = 0; c < vocabulary; ++c) {
                const double x = random.uniform(-2, 2);
                z[place(i, c)] = T(x);
                ref[place(i, c)] = T(x + random.uniform(-0.5, 0.5));
                sum += std::exp(static_cast<long double>(scaled(z[place(i, c)])));
            }
            target.push_back(static_cast<std::int32_t>(random.bits() % static_cast<std::uint32_t>(vocabulary)));
            const double logp = scaled(z[place(i, target[k])]) - static_cast<double>(std::log(sum));
            for (auto* x : {&a.logp_old, &a.logp_ref, &a.logp_rollout}) {
                (*x)[k] = static_cast<S>(logp + static_cast<double>((*x)[k]) - static_cast<double>(a.logp[k]));
            }
        }
    }

    std::int64_t rows() const { return static_cast<std::int64_t>(a.tokens()); }
    std::size_t place(std::int64_t i, std::int64_t c) const { return static_cast<std::size_t>(i * stride + c); }
    double scaled(const T& x) const { return static_cast<double>(x) / options.temperature; }
    grpo::logits_view<T> logits() const { return grpo::logits(z, rows(), vocabulary, stride); }
    grpo::logits_view<T> reference() const { return grpo::logits(ref, rows(), vocabulary, stride); }
    auto batch() const {
        return grpo::batch(a.shape(), grpo::values(a.value), grpo::logp_old(a.logp_old), grpo::logp_ref(a.logp_ref),
                           grpo::logp_rollout(a.logp_rollout), grpo::advantage(a.advantage), grpo::weight(a.weight),
                           grpo::keep(a.keep), grpo::label(a.label), grpo::values_old(a.value_old), grpo::returns(a.returns));
    }

    // The same with another storage and other inputs, rounded once.
    template <class To, class Inputs>
    world<To, Inputs> as() const {
        world<To, Inputs> w({}, vocabulary, stride);
        w.a.cu = a.cu;
        w.a.mask = a.mask;
        const auto copy = [](const auto& from, auto& to) {
            to.clear();
            for (const auto& x : from) to.push_back(std::remove_cvref_t<decltype(to[0])>(static_cast<double>(x)));
        };
        copy(a.logp, w.a.logp), copy(a.entropy, w.a.entropy), copy(a.value, w.a.value), copy(a.logp_old, w.a.logp_old);
        copy(a.logp_ref, w.a.logp_ref), copy(a.logp_rollout, w.a.logp_rollout), copy(a.advantage, w.a.advantage);
        copy(a.weight, w.a.weight), copy(a.keep, w.a.keep), copy(a.label, w.a.label), copy(a.value_old, w.a.value_old);
        copy(a.returns, w.a.returns), copy(z, w.z), copy(ref, w.ref);
        w.target = target;
        w.options = options;
        return w;
    }
};

// The same with columns from `columns` on that only pad, and hold NaN.
template <class T, class S>
world<T, S> padded(world<T, S> w, std::int64_t columns) {
    w.options.vocabulary = columns;
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        w.target[static_cast<std::size_t>(i)] %= static_cast<std::int32_t>(columns);
        for (std::int64_t c = columns; c < w.vocabulary; ++c) {
            w.z[w.place(i, c)] = w.ref[w.place(i, c)] = T(std::numeric_limits<double>::quiet_NaN());
        }
    }
    return w;
}
// A loss from logits with all that it gives.
template <class C, class Out>
struct outcome {
    grpo::loss_result result;
    double denominator = 0;
    std::vector<C> logp, entropy, full_kl;
    std::vector<Out> gradient;

    double loss() const { return result.loss(denominator); }
};

// What lies in `gradient` before and where nothing is written.
inline constexpr float sentinel = 77;

// offset: of the gradient's first entry from a line of memory. Sums of packs depend on it, and on nothing else of memory.
template <class Out, class Exec, class Loss, class T, class S>
auto evaluate(Exec&& exec, const Loss& loss, const world<T, S>& w, bool with_gradient = true, std::size_t offset = 0) {
    using C = std::conditional_t<std::is_same_v<T, double>, double, S>;
    outcome<C, Out> o;
    const auto batch = w.batch();
    o.denominator = loss.over.denominator(grpo::count(batch.layout));
    for (auto* x : {&o.logp, &o.entropy, &o.full_kl}) x->assign(w.a.tokens(), C(sentinel));
    const std::size_t line = 64 / sizeof(Out);
    o.gradient.assign(w.z.size() + offset + line, Out(sentinel));
    offset += (line - reinterpret_cast<std::uintptr_t>(o.gradient.data()) / sizeof(Out) % line) % line;
    std::vector<std::byte> memory(
        static_cast<std::size_t>(grpo::evaluate_logits_workspace(exec.size(), w.rows(), w.vocabulary)));
    const grpo::view<Out> gradient(o.gradient.data() + offset, static_cast<std::int64_t>(w.z.size()));
    o.result = random_batch::arrived(
        grpo::evaluate_logits(exec, loss, w.logits(), w.target, w.options, batch, o.denominator,
                              with_gradient ? gradient : grpo::view<Out>{}, grpo::view(memory),
                              {.logp = grpo::view(o.logp), .entropy = grpo::view(o.entropy), .full_kl = grpo::view(o.full_kl)},
                              w.reference()));
    o.gradient.erase(o.gradient.begin(), o.gradient.begin() + static_cast<std::ptrdiff_t>(offset));
    o.gradient.resize(w.z.size());
    return o;
}
// Over the logits themselves.
template <class Exec, class Loss, class T, class S>
grpo::loss_result evaluate_in_place(Exec&& exec, const Loss& loss, world<T, S>& w) {
    const auto batch = w.batch();
    std::vector<std::byte> memory(
        static_cast<std::size_t>(grpo::evaluate_logits_workspace(exec.size(), w.rows(), w.vocabulary)));
    return random_batch::arrived(grpo::evaluate_logits(
        exec, loss, w.logits(), w.target, w.options, batch, loss.over.denominator(grpo::count(batch.layout)), grpo::view(w.z),
        grpo::view(memory), {}, w.reference()));
}

// "" if a loss of padded rows is that of the same rows without padding, whose gradient is +0.0 there.
template <class Out, class Exec, class Loss, class T, class S>
const char* padding_leaks(const Exec& exec, const Loss& loss, const world<T, S>& w, double tolerance) {
    auto narrow = w;
    narrow.options.vocabulary = 0;
    narrow.vocabulary = w.options.vocabulary;
    narrow.z.resize(static_cast<std::size_t>(grpo::padded(w.rows(), narrow.vocabulary, w.stride).extent()));
    narrow.ref.resize(narrow.z.size());
    const auto wide = evaluate<Out>(exec, loss, w), exact = evaluate<Out>(exec, loss, narrow);
    // Relative to what is large: the last places of a float depend on where a row lies in memory.
    const auto close = [&](double a, double b) { return std::abs(a - b) <= tolerance * std::fmax(1.0, std::abs(b)); };
    if (!close(wide.result.sum, exact.result.sum)) return "the loss differs";
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        for (std::int64_t c = 0; c < w.vocabulary; ++c) {
            const Out zero(0.0f), &x = wide.gradient[w.place(i, c)];
            const bool pads = c >= narrow.vocabulary;
            if (pads && std::memcmp(&x, &zero, sizeof zero) != 0) return "the gradient of padding is not +0.0";
            if (pads || close(static_cast<double>(x), static_cast<double>(exact.gradient[w.place(i, c)]))) continue;
            return "the gradient differs";
        }
    }
    return "";
}

}  // namespace head_loss_cases
