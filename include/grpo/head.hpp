// From logits to what the losses need, and back: log-probability of the chosen token, entropy, full KL.
//
//   grpo::token_logp(exec, logits, targets, {.temperature = 0.7}, logp, entropy);
//   ... the loss, with d_logp and d_entropy ...
//   grpo::d_logits(exec, logits, targets, {.temperature = 0.7}, d_logp, d_entropy, gradient);
//
// z = logits / temperature in every function, so that old, new and reference log-probabilities can share it (R1.32). Sums
// run in double (serial) or in blocks of packs, never below float, whatever the storage. Logits of -inf (top-k and top-p
// filters, padded vocabulary) have probability 0 and gradient 0, also at the start of a row; a row of nothing but -inf has
// log-probability -inf and entropy 0. O(rows · vocabulary), no workspace.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// Row-major logits: `rows` tokens, `vocabulary` entries each, rows `stride` entries apart (0: side by side).
template <class T>
struct logits_view {
    view<const T> data;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    std::int64_t stride = 0;

    padded layout() const { return padded(rows, vocabulary, stride); }
    problem validate(const char* function) const {
        return detail::first_of(layout().validate(function),
                                detail::below(function, "vocabulary", static_cast<double>(vocabulary), 1),
                                detail::wrong_size(function, "logits", data.size(), layout().extent(), "positions"),
                                detail::null_pointer(function, "logits", data.data(), data.size()));
    }
};
template <class Container>
auto logits(const Container& data, std::int64_t rows, std::int64_t vocabulary, std::int64_t stride = 0) {
    const view all(data);
    using T = std::remove_cvref_t<decltype(all[0])>;
    return logits_view<T>{{all.data(), all.size()}, rows, vocabulary, stride};
}

struct head_options {
    double temperature = 1.0;

    problem validate(const char* function) const {
        if (temperature > 0) return {};
        return detail::complain(function, "temperature", "is %g, but must be above %g", temperature, 0.0);
    }
};

namespace detail {

template <class T>
using head_compute = std::conditional_t<std::same_as<T, double>, double, float>;

// What one row's softmax needs: the greatest z, log Σ e^(z - top), and H; `empty` if no logit is above -inf.
struct softmax_row {
    double top;
    double log_sum;
    double entropy;
    bool empty;

    // log softmax of one z; never above 0.
    GRPO_HD double log_probability(double z) const {
        const double x = z - top - log_sum;
        return x < 0 ? x : 0.0;
    }
};

// z of a position; as good as -inf where it does not exist.
template <class T, class V>
GRPO_HD V scaled_logit(const T* data, cursor<V> at, const V& inverse_temperature) {
    const V z = at.load(data) * inverse_temperature;
    return math::select<V>(at.existing(), z, V(constant<V>(lowest)));
}

template <class V, class Team, class T>
GRPO_HD softmax_row measure_row(Team& team, const T* data, std::int64_t begin, std::int64_t end, double temperature) {
    const V inverse(constant<V>(1.0 / temperature));
    const auto greatest = team.template fold<tally<0, 1>, V>(begin, end, [&](auto& state, cursor<V> at) {
        using A = std::remove_reference_t<decltype(state.maximum[0])>;
        state.maximum[0] = math::max(state.maximum[0], A(scaled_logit(data, at, inverse)));
    });
    const V top(constant<V>(greatest.maximum[0]));
    const auto total = team.template fold<tally<2>, V>(begin, end, [&](auto& state, cursor<V> at) {
        const V u = scaled_logit(data, at, inverse) - top;
        const V e = math::exp(u);
        const V zero(constant<V>(0));
        add_where(state.sum[0], zero < e, e);
        add_where(state.sum[1], zero < e, V(u * e));  // u e^u is 0 where e^u is
    });
    if (!(total.sum[0] > 0)) return {0.0, 0.0, 0.0, true};
    const double log_sum = ::log(total.sum[0]);
    const double entropy = log_sum - total.sum[1] / total.sum[0];
    return {greatest.maximum[0], log_sum, entropy > 0 ? entropy : 0.0, false};
}

template <class T, class Index, class Out>
struct logp_rows {
    using compute = head_compute<T>;
    logits_view<T> in;
    const Index* target;
    double temperature;
    Out* logp;
    Out* entropy;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute>;
        const std::int64_t begin = padded(in.rows, in.vocabulary, in.stride).begin(row);
        const softmax_row s = measure_row<V>(team, in.data.data(), begin, begin + in.vocabulary, temperature);
        if (!team.leader()) return;
        const compute chosen = static_cast<compute>(in.data[begin + static_cast<std::int64_t>(target[row])]);
        if (logp != nullptr) logp[row] = static_cast<Out>(s.log_probability(static_cast<double>(chosen) / temperature));
        if (entropy != nullptr) entropy[row] = static_cast<Out>(s.entropy);
    }
};

// dL/dlogits = (g (onehot - p) - h p (log p + H)) / temperature, with g = dL/dlogp and h = dL/dH.
template <class T, class Index, class G, class Out>
struct d_logits_rows {
    using compute = head_compute<T>;
    logits_view<T> in;
    const Index* target;
    double temperature;
    const G* d_logp;
    const G* d_entropy;
    Out* gradient;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute>;
        const std::int64_t begin = padded(in.rows, in.vocabulary, in.stride).begin(row);
        const std::int64_t chosen = begin + static_cast<std::int64_t>(target[row]);
        const softmax_row s = measure_row<V>(team, in.data.data(), begin, begin + in.vocabulary, temperature);
        const double g = d_logp == nullptr ? 0.0 : static_cast<double>(d_logp[row]);
        const double h = d_entropy == nullptr ? 0.0 : static_cast<double>(d_entropy[row]);
        const V inverse(constant<V>(1.0 / temperature));
        const V shift(constant<V>(s.top + s.log_sum));
        const V of_logp(constant<V>(g / temperature));
        const V of_entropy(constant<V>(h / temperature));
        const V entropy(constant<V>(s.entropy));
        const V zero(constant<V>(0));
        const d_logits_rows self = *this;  // a copy that no output aliases
        team.template each<V>(begin, begin + in.vocabulary, [&](cursor<V> at) {
            const bool here = at.i <= chosen && chosen < at.i + at.count;
            const double z = here ? static_cast<double>(static_cast<compute>(self.in.data[chosen])) : 0.0;
            const V log_p = scaled_logit(self.in.data.data(), at, inverse) - shift;
            const V p = math::exp(log_p);
            const V slope = -(of_logp + of_entropy * (log_p + entropy)) * p;
            at.store(self.gradient, math::select<V>(zero < p, slope, zero));
            if (here) self.gradient[chosen] = static_cast<Out>(self.of_chosen(s, z / self.temperature, g, h));
        });
    }

private:
    GRPO_HD double of_chosen(const softmax_row& s, double z, double g, double h) const {
        if (s.empty) return 0.0;
        const double log_p = s.log_probability(z);
        const double p = ::exp(log_p);
        const double of_h = p > 0 ? h * p * (log_p + s.entropy) : 0.0;
        return (g * (1.0 - p) - of_h) / temperature;
    }
};

// KL(π ‖ π_ref) = Σ_v π_v (log π_v - log π_ref,v) of one row, and optionally weight times its gradient
// π_v (log π_v - log π_ref,v - KL) / temperature. Where π_v is 0 both are 0.
template <class T, class R, class Out, class Gradient>
struct full_kl_rows {
    using compute = head_compute<std::conditional_t<std::same_as<T, double>, T, R>>;
    logits_view<T> in;
    logits_view<R> ref;
    double temperature;
    Out* kl;
    const Out* weight;
    Gradient* gradient;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute>;
        const std::int64_t begin = padded(in.rows, in.vocabulary, in.stride).begin(row);
        const std::int64_t apart = padded(ref.rows, ref.vocabulary, ref.stride).begin(row) - begin;
        const std::int64_t end = begin + in.vocabulary;
        const softmax_row s = measure_row<V>(team, in.data.data(), begin, end, temperature);
        const softmax_row q = measure_row<V>(team, ref.data.data(), begin + apart, end + apart, temperature);
        const V inverse(constant<V>(1.0 / temperature));
        const V shift(constant<V>(s.top + s.log_sum));
        const V ref_shift(constant<V>(q.top + q.log_sum));
        const V zero(constant<V>(0));
        const full_kl_rows self = *this;  // a copy that no output aliases
        const auto log_p = [&](cursor<V> at) { return V(scaled_logit(self.in.data.data(), at, inverse) - shift); };
        const auto log_q = [&](cursor<V> at) {
            return V(scaled_logit(self.ref.data.data(), cursor<V>{at.i + apart, at.count}, inverse) - ref_shift);
        };
        const auto total = team.template fold<tally<1>, V>(begin, end, [&](auto& state, cursor<V> at) {
            const V a = log_p(at);
            const V p = math::exp(a);
            add_where(state.sum[0], zero < p, V(p * (a - log_q(at))));
        });
        const double value = s.empty || total.sum[0] < 0 ? 0.0 : total.sum[0];
        if (team.leader() && kl != nullptr) kl[row] = static_cast<Out>(value);
        if (gradient == nullptr) return;
        const V mean(constant<V>(value));
        const V scale(constant<V>((weight == nullptr ? 1.0 : static_cast<double>(weight[row])) / temperature));
        team.template each<V>(begin, end, [&](cursor<V> at) {
            const V a = log_p(at);
            const V p = math::exp(a);
            at.store(self.gradient, math::select<V>(zero < p, V(scale * p * (a - log_q(at) - mean)), zero));
        });
    }
};

template <class Index>
problem check_targets(const char* function, const view<Index>& target, std::int64_t rows, std::int64_t vocabulary) {
    if (const problem p = wrong_size(function, "targets", target.size(), rows, "tokens")) return p;
    if (const problem p = null_pointer(function, "targets", target.data(), rows)) return p;
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto t = static_cast<std::int64_t>(target[row]);
        if (t < 0 || t >= vocabulary) {
            return complain(function, "targets", "has %lld at token %lld, but the vocabulary has %lld entries",
                            static_cast<long long>(t), static_cast<long long>(row), static_cast<long long>(vocabulary));
        }
    }
    return {};
}

// An output or input with one entry per row that may be left out.
template <class V>
problem check_per_row(const char* function, const char* argument, const V& values, std::int64_t rows) {
    if (values.data() == nullptr && values.size() == 0) return {};
    return wrong_size(function, argument, values.size(), rows, "tokens");
}

}  // namespace detail

// logp[row] = log softmax(z)[targets[row]], never above 0; entropy[row] = H(softmax(z)) = lse(z) - Σ p z. Either output may
// be an empty view. Errors: sizes, null pointers, a target outside the vocabulary, temperature <= 0.
template <class Executor, class T, class Targets, class Out>
void token_logp(const Executor& exec, const logits_view<T>& in, const Targets& targets, const head_options& options,
                view<Out> logp, view<Out> entropy = {}) {
    constexpr const char* function = "token_logp";
    const view ids(targets);
    detail::require(in.validate(function));
    detail::require(options.validate(function));
    detail::require(detail::check_targets(function, ids, in.rows, in.vocabulary));
    detail::require(detail::check_per_row(function, "logp", logp, in.rows));
    detail::require(detail::check_per_row(function, "entropy", entropy, in.rows));
    using Index = std::remove_cvref_t<decltype(ids[0])>;
    exec.teams(in.rows, detail::logp_rows<T, Index, Out>{in, ids.data(), options.temperature, logp.data(),
                                                         entropy.data()});
}

// The chain rule back to the logits: gradient = d_logp · dlogp/dlogits + d_entropy · dH/dlogits, at the same positions as
// the logits. Either slope may be an empty view. gradient may be the logits' own memory.
template <class Executor, class T, class Targets, class G, class Out>
void d_logits(const Executor& exec, const logits_view<T>& in, const Targets& targets, const head_options& options,
              view<const G> d_logp, view<const G> d_entropy, view<Out> gradient) {
    constexpr const char* function = "d_logits";
    const view ids(targets);
    detail::require(in.validate(function));
    detail::require(options.validate(function));
    detail::require(detail::check_targets(function, ids, in.rows, in.vocabulary));
    detail::require(detail::check_per_row(function, "d_logp", d_logp, in.rows));
    detail::require(detail::check_per_row(function, "d_entropy", d_entropy, in.rows));
    detail::require(detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions"));
    using Index = std::remove_cvref_t<decltype(ids[0])>;
    exec.teams(in.rows, detail::d_logits_rows<T, Index, G, Out>{in, ids.data(), options.temperature, d_logp.data(),
                                                                d_entropy.data(), gradient.data()});
}

// KL(π ‖ π_ref) over the whole vocabulary, per token (K05), and, if `gradient` is given, weight[row] · dKL/dlogits (weight 1
// if left out). gradient may be the logits' own memory. +inf where π gives weight to what π_ref excludes.
template <class Executor, class T, class R, class Out, class Gradient = Out>
void full_kl(const Executor& exec, const logits_view<T>& in, const logits_view<R>& ref, const head_options& options,
             view<Out> kl, view<const Out> weight = {}, view<Gradient> gradient = {}) {
    constexpr const char* function = "full_kl";
    detail::require(in.validate(function));
    detail::require(ref.validate(function));
    detail::require(options.validate(function));
    detail::require(detail::wrong_size(function, "logits_ref's rows", ref.rows, in.rows, "tokens"));
    detail::require(detail::wrong_size(function, "logits_ref's vocabulary", ref.vocabulary, in.vocabulary, "logits a token"));
    detail::require(detail::check_per_row(function, "kl", kl, in.rows));
    detail::require(detail::check_per_row(function, "weight", weight, in.rows));
    if (gradient.data() != nullptr) {
        detail::require(detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions"));
    }
    exec.teams(in.rows, detail::full_kl_rows<T, R, Out, Gradient>{in, ref, options.temperature, kl.data(), weight.data(),
                                                                  gradient.data()});
}

}  // namespace grpo::inline v0
