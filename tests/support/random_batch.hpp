// A batch with every input a term may need, from a seed: log-probabilities on both sides of every clip, masks with holes.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <grpo/objective.hpp>

namespace random_batch {

// Numbers that are equal on every machine.
class source {
public:
    explicit source(std::uint64_t seed) : state_(seed * 2654435769u + 1) {}
    std::uint32_t bits() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state_ >> 33);
    }
    // In [low, high), a multiple of 2^-12 of the width, so that float holds it exactly enough to be the same in double.
    double uniform(double low, double high) { return low + (high - low) * (bits() % 4096) / 4096.0; }

private:
    std::uint64_t state_;
};

template <class T>
struct arrays {
    std::vector<std::int64_t> cu;
    std::vector<std::uint8_t> mask;
    std::vector<T> logp, entropy, value, logp_old, logp_ref, logp_rollout, advantage, weight, keep, label, value_old, returns;

    // f(array) for every per-token input.
    template <class F>
    void each(F&& f) {
        for (std::vector<T>* x : {&logp, &entropy, &value, &logp_old, &logp_ref, &logp_rollout, &advantage, &weight, &keep,
                                  &label, &value_old, &returns}) {
            f(*x);
        }
    }
    std::size_t tokens() const { return logp.size(); }

    // With its extent given, for executors whose memory the host does not see.
    auto shape() const { return grpo::ragged(grpo::view<const std::int64_t>(cu), cu.back()).where(mask); }
    template <class Shape>
    auto batch(const Shape& shape) const {
        return grpo::batch(shape, grpo::logp(logp), grpo::entropy(entropy), grpo::values(value), grpo::logp_old(logp_old),
                           grpo::logp_ref(logp_ref), grpo::logp_rollout(logp_rollout), grpo::advantage(advantage),
                           grpo::weight(weight), grpo::keep(keep), grpo::label(label), grpo::values_old(value_old),
                           grpo::returns(returns));
    }
    auto batch() const { return batch(shape()); }
};

template <class T>
arrays<T> make(const std::vector<int>& lengths, std::uint64_t seed, double active = 0.75) {
    source random(seed);
    arrays<T> a;
    a.cu.push_back(0);
    for (const int n : lengths) {
        const T advantage = static_cast<T>(random.uniform(-2, 2));
        for (int i = 0; i < n; ++i) {
            const double logp = random.uniform(-3, -0.05);
            a.mask.push_back(random.uniform(0, 1) < active ? 1 : 0);
            a.logp.push_back(static_cast<T>(logp));
            a.entropy.push_back(static_cast<T>(random.uniform(0, 2)));
            a.value.push_back(static_cast<T>(random.uniform(-1, 1)));
            a.logp_old.push_back(static_cast<T>(logp + random.uniform(-0.5, 0.5)));
            a.logp_ref.push_back(static_cast<T>(logp + random.uniform(-0.75, 0.75)));
            a.logp_rollout.push_back(static_cast<T>(logp + random.uniform(-0.25, 0.25)));
            a.advantage.push_back(advantage);
            a.weight.push_back(static_cast<T>(random.uniform(0, 1) < 0.2 ? 0.0 : random.uniform(0.5, 2)));
            a.keep.push_back(static_cast<T>(random.bits() % 2));
            a.label.push_back(static_cast<T>(random.bits() % 2));
            a.value_old.push_back(static_cast<T>(random.uniform(-1, 1)));
            a.returns.push_back(static_cast<T>(random.uniform(-1, 1)));
        }
        a.cu.push_back(static_cast<std::int64_t>(a.logp.size()));
    }
    return a;
}

// What an executor of another memory returns is an address, where the result will be once `arrive` has waited for it.
inline void (*arrive)() = [] {};
template <class Result>
Result arrived(const Result& r) {
    return r;
}
template <class Result>
Result arrived(const Result* r) {
    arrive();
    return *r;
}

// A loss with all its derivatives.
template <class T>
struct outcome {
    grpo::loss_result result;
    double denominator = 0;
    std::vector<T> d_logp, d_entropy, d_values;

    double loss() const { return result.loss(denominator); }
};

template <class T, class Exec, class Loss, class Shape>
outcome<T> evaluate_loss(Exec&& exec, const Loss& loss, const arrays<T>& a, const Shape& shape) {
    outcome<T> r;
    r.denominator = loss.over.denominator(grpo::count(shape));
    const std::size_t n = static_cast<std::size_t>(shape.extent());
    r.d_logp.assign(n, T(77));
    r.d_entropy.assign(n, T(77));
    r.d_values.assign(n, T(77));
    r.result = arrived(grpo::evaluate(exec, loss, a.batch(shape), r.denominator, grpo::d_logp(r.d_logp),
                                      grpo::d_entropy(r.d_entropy), grpo::d_values(r.d_values)));
    return r;
}

template <class T, class Exec, class Term, class Shape>
outcome<T> evaluate(Exec&& exec, const Term& term, const arrays<T>& a, const Shape& shape,
                    grpo::aggregation over = grpo::aggregation::token_mean(),
                    grpo::nonfinite policy = grpo::nonfinite::report) {
    return evaluate_loss(exec, grpo::objective{term, over, policy}, a, shape);
}
// The same with metrics.
template <class T, class Exec, class Term, class Shape>
outcome<T> diagnose(Exec&& exec, const Term& term, const arrays<T>& a, const Shape& shape,
                    grpo::aggregation over = grpo::aggregation::token_mean(),
                    grpo::nonfinite policy = grpo::nonfinite::report) {
    return evaluate_loss(exec, grpo::objective{term, over, policy}.diagnosed(), a, shape);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
inline bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Loss, weight, counts, metrics and gradients.
template <class T>
bool same_bits(const outcome<T>& a, const outcome<T>& b) {
    const grpo::loss_result &x = a.result, &y = b.result;
    return same_bits(x.sum, y.sum) && same_bits(x.weight, y.weight) && x.count.tokens == y.count.tokens &&
           x.count.nonempty == y.count.nonempty && x.nonfinite == y.nonfinite && x.first_nonfinite == y.first_nonfinite &&
           std::memcmp(&x.metrics, &y.metrics, sizeof x.metrics) == 0 && same_bits(a.d_logp, b.d_logp) &&
           same_bits(a.d_entropy, b.d_entropy) && same_bits(a.d_values, b.d_values);
}

// Every metric, in order.
inline std::vector<double> numbers(const grpo::diagnostics& m) {
    return {m.clipped_low, m.clipped_high, m.clamped, m.log_ratio, m.half_square, m.approx_kl, m.ratio, m.ratio_square,
            m.entropy, m.kl_ref_k1, m.kl_ref_k3, m.rollout_kl, m.rollout_k3, m.rollout_weight, m.rollout_square,
            m.rollout_gap, m.largest_log_ratio, m.smallest_log_ratio, m.largest_gap, m.tokens};
}

// R1.41: d_logp over an input that the loss, or its metrics, read: the input whose memory gave other bits, or "".
template <class T, class Exec, class Loss>
std::string overwritten(Exec&& exec, const Loss& loss, const arrays<T>& a) {
    std::vector<T> expected(a.tokens());
    const grpo::loss_result reference = arrived(grpo::evaluate(exec, loss, a.batch(), 3.0, grpo::d_logp(expected)));
    const std::pair<const char*, std::vector<T> arrays<T>::*> fields[] = {
        {"logp", &arrays<T>::logp},         {"logp_old", &arrays<T>::logp_old}, {"logp_ref", &arrays<T>::logp_ref},
        {"rollout", &arrays<T>::logp_rollout}, {"entropy", &arrays<T>::entropy},   {"advantage", &arrays<T>::advantage}};
    for (const auto& [name, field] : fields) {
        arrays<T> b = a;
        const grpo::loss_result r = arrived(grpo::evaluate(exec, loss, b.batch(), 3.0, grpo::d_logp(b.*field)));
        const bool same = same_bits(r.sum, reference.sum) && std::memcmp(&r.metrics, &reference.metrics, sizeof r.metrics) == 0;
        if (!same || !same_bits(b.*field, expected)) return name;
    }
    return "";
}

// The same batch with `poison` behind every mask.
template <class T>
arrays<T> poisoned(arrays<T> a, T poison) {
    a.each([&](std::vector<T>& x) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (a.mask[i] == 0) x[i] = poison;
        }
    });
    return a;
}

template <class T>
std::vector<T> poisons() {
    using limits = std::numeric_limits<T>;
    return {limits::quiet_NaN(), limits::infinity(), -limits::infinity(), T(1e30)};
}

// "" if the outputs are the same bits as the clean run's and exactly +0.0 where masked.
template <class T>
const char* leak(const outcome<T>& clean, const outcome<T>& got, const arrays<T>& a) {
    if (!same_bits(clean, got)) return "an output differs from the clean run";
    for (std::size_t i = 0; i < a.mask.size(); ++i) {
        if (a.mask[i] != 0) continue;
        for (const T g : {got.d_logp[i], got.d_entropy[i], got.d_values[i]}) {
            if (g != T(0) || std::signbit(g)) return "a masked gradient is not +0.0";
        }
    }
    return "";
}

}  // namespace random_batch
