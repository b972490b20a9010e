// Losses of tensors, from log-probabilities, values and the like: one autograd node for any objective.
#pragma once

#include <grpo/adapt/torch/node.hpp>
#include <grpo/adapt/torch/site.hpp>
#include <grpo/adapt/torch/tensors.hpp>

#include <array>
#include <concepts>
#include <optional>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {

// Inputs over tokens, under the core's names; undefined: not given. [rows, width] with an optional mask of the same
// shape, or flat [tokens] with cu_seqlens [rows + 1] (and an optional mask). float32, float64, bfloat16 or float16,
// with any strides. What is constant may be [rows] or [rows, 1] instead: one entry per sequence (in a flat batch of as
// many tokens as rows, [tokens] is what a one-dimensional tensor means). Masked entries may hold anything.
struct token_tensors {
    at::Tensor logp{}, entropy{}, values{};  // differentiable
    at::Tensor logp_old{}, logp_ref{}, logp_rollout{}, logp_teacher{}, advantage{}, weight{}, keep{}, label{},
        values_old{}, returns{};
    at::Tensor mask{}, cu_seqlens{};
};

// Inputs over pairs of responses: all [pairs], or all [pairs, 1] or any other one shape.
struct pair_tensors {
    at::Tensor chosen{}, rejected{}, gold{};  // differentiable
    at::Tensor ref_chosen{}, ref_rejected{}, chosen_length{}, rejected_length{}, gold_length{}, margin{}, pair_weight{},
        preferred{};
};

// A scalar to call backward() on, and the core's sums: counts, and metrics for objective::diagnosed().
struct loss {
    at::Tensor value{};
    loss_result sums;
};

namespace detail {

// One input: its name, its tensor as given, and what it became.
struct named_tensor {
    unsigned bit;
    const char* name;
    const at::Tensor* given;
    bool differentiable;
    bool any_number;  // flags may be booleans or integers
    at::Tensor flat{};
};

inline std::array<named_tensor, 13> inputs_of(const token_tensors& x) {
    return {{{input::logp::bit, "logp", &x.logp, true, false},
             {input::entropy::bit, "entropy", &x.entropy, true, false},
             {input::value::bit, "values", &x.values, true, false},
             {input::logp_old::bit, "logp_old", &x.logp_old, false, false},
             {input::logp_ref::bit, "logp_ref", &x.logp_ref, false, false},
             {input::logp_rollout::bit, "logp_rollout", &x.logp_rollout, false, false},
             {input::logp_teacher::bit, "logp_teacher", &x.logp_teacher, false, false},
             {input::advantage::bit, "advantage", &x.advantage, false, false},
             {input::weight::bit, "weight", &x.weight, false, false},
             {input::keep::bit, "keep", &x.keep, false, true},
             {input::label::bit, "label", &x.label, false, true},
             {input::value_old::bit, "values_old", &x.values_old, false, false},
             {input::returns::bit, "returns", &x.returns, false, false}}};
}
inline std::array<named_tensor, 11> inputs_of(const pair_tensors& x) {
    return {{{input::chosen::bit, "chosen", &x.chosen, true, false},
             {input::rejected::bit, "rejected", &x.rejected, true, false},
             {input::gold::bit, "gold", &x.gold, true, false},
             {input::ref_chosen::bit, "ref_chosen", &x.ref_chosen, false, false},
             {input::ref_rejected::bit, "ref_rejected", &x.ref_rejected, false, false},
             {input::chosen_length::bit, "chosen_length", &x.chosen_length, false, true},
             {input::rejected_length::bit, "rejected_length", &x.rejected_length, false, true},
             {input::gold_length::bit, "gold_length", &x.gold_length, false, true},
             {input::margin::bit, "margin", &x.margin, false, false},
             {input::pair_weight::bit, "pair_weight", &x.pair_weight, false, false},
             {input::preferred::bit, "preferred", &x.preferred, false, true}}};
}

// A batch of the core over the flat tensors; what is absent is a null view that no term reads.
template <class T, class Shape>
auto batch_of(const Shape& shape, const std::array<named_tensor, 13>& x) {
    const auto at = [&](std::size_t k) { return read<T>(x[k].flat); };
    return batch(shape, logp(at(0)), entropy(at(1)), grpo::values(at(2)), logp_old(at(3)), logp_ref(at(4)),
                 logp_rollout(at(5)), logp_teacher(at(6)), advantage(at(7)), weight(at(8)), keep(at(9)), label(at(10)),
                 values_old(at(11)), returns(at(12)));
}
template <class T, class Shape>
auto batch_of(const Shape& shape, const std::array<named_tensor, 11>& x) {
    const auto at = [&](std::size_t k) { return read<T>(x[k].flat); };
    return batch(shape, chosen(at(0)), rejected(at(1)), gold(at(2)), ref_chosen(at(3)), ref_rejected(at(4)),
                 chosen_length(at(5)), rejected_length(at(6)), gold_length(at(7)), margin(at(8)), pair_weight(at(9)),
                 preferred(at(10)));
}

// What a term reads of a batch: without the parts whose scale is 0.
template <class Term>
unsigned reads(const Term& term) {
    return grpo::detail::reduced(term, []<class X>(const X&) -> unsigned { return X::needs; });
}

// Types, devices, graphs, and whether what the loss reads is there.
template <class Inputs>
at::ScalarType check_inputs(const char* function, const Inputs& inputs, unsigned read, at::Device device) {
    at::ScalarType type = at::kFloat;
    for (const named_tensor& x : inputs) {
        const at::Tensor& t = *x.given;
        if (!t.defined()) {
            if ((read & x.bit) != 0) refuse(function, x.name, "is missing, but the loss reads it");
            continue;
        }
        if (x.any_number)
            check_not_complex(function, x.name, t, device);
        else
            check_floating(function, x.name, t, device);
        if (!x.differentiable) check_constant(function, x.name, t);
        if (t.scalar_type() == at::kDouble) type = at::kDouble;
    }
    return type;
}

template <class Inputs>
void flatten(const char* function, Inputs& inputs, const placement& where, at::ScalarType type) {
    for (named_tensor& x : inputs) {
        if (x.differentiable && x.given->defined() && x.given->sizes() != where.like.sizes()) {
            require(complain(function, x.name, "has the shape %s, but the batch has %s", sizes_of(*x.given).c_str(),
                             sizes_of(where.like).c_str()));
        }
        x.flat = flattened(function, x.name, *x.given, where, type);
    }
}

// The tensor whose shape is the batch's: the first one that a loss could be differentiated by, else the first of all.
template <class Inputs>
const named_tensor& leader_of(const char* function, const Inputs& inputs, unsigned read) {
    for (const named_tensor& x : inputs) {
        if (x.given->defined()) return x;
        if ((read & x.bit) != 0) refuse(function, x.name, "is missing, but the loss reads it");
    }
    refuse(function, inputs[0].name, "is missing, and so is every other input");
}

// Each pair is a row of one entry, so that aggregations over sequences and over tokens agree.
template <class Inputs>
placement place_pairs(const char* function, const Inputs& inputs, const at::Tensor& like) {
    for (const named_tensor& x : inputs) {
        if (!x.given->defined() || x.given->sizes() == like.sizes()) continue;
        require(complain(function, x.name, "has the shape %s, but the batch has %s", sizes_of(*x.given).c_str(),
                         sizes_of(like).c_str()));
    }
    placement where;
    where.like = like;
    where.offsets = at::arange(like.numel() + 1, made(like.device(), at::kLong));
    where.mask = at::ones({like.numel()}, made(like.device(), at::kBool));
    return where;
}

template <class Inputs>
bool wants_gradient(const Inputs& inputs) {
    if (!at::GradMode::is_enabled()) return false;
    for (const named_tensor& x : inputs) {
        if (x.differentiable && x.given->defined() && x.given->requires_grad()) return true;
    }
    return false;
}

// The core's evaluation, with memory for those slopes that the term can have.
template <bool Slopes, class Exec, class Term, bool D, class Batch>
auto run(const Exec& exec, const objective<Term, D>& o, const Batch& b, double n, [[maybe_unused]] at::Device device,
         [[maybe_unused]] std::array<at::Tensor, 3>& out) {
    using T = typename Batch::compute;
    using record = typename grpo::detail::record_of<Batch>::template type<float>;
    [[maybe_unused]] const auto memory = [&](std::size_t k) {
        out[k] = at::empty({b.layout.extent()}, made(device, c10::CppTypeToScalarType<T>::value));
        return write<T>(out[k]);
    };
    if constexpr (!Slopes) {
        return grpo::evaluate(exec, o, b, n);
    } else if constexpr (std::same_as<record, grpo::token<float>>) {
        constexpr bool more = (Term::needs & (input::entropy::bit | input::value::bit)) != 0;
        if constexpr (!more) {
            return grpo::evaluate(exec, o, b, n, d_logp(memory(0)));
        } else {
            return grpo::evaluate(exec, o, b, n, d_logp(memory(0)), d_entropy(memory(1)), d_values(memory(2)));
        }
    } else if constexpr ((Term::needs & input::gold::bit) == 0) {
        return grpo::evaluate(exec, o, b, n, d_chosen(memory(0)), d_rejected(memory(1)));
    } else {
        return grpo::evaluate(exec, o, b, n, d_chosen(memory(0)), d_rejected(memory(1)), d_gold(memory(2)));
    }
}

template <bool Slopes, class Site, class Term, bool D, class Inputs>
std::pair<evaluated, loss_result> compute(const Site& site, const objective<Term, D>& o, const Inputs& inputs,
                                          const placement& where, at::ScalarType type,
                                          std::optional<double> denominator) {
    const auto shape = where.shape();
    const double n = denominator ? *denominator : o.over.denominator(where.count());
    std::pair<evaluated, loss_result> r;
    const at::Device device = site.device();
    decltype(auto) exec = site.executor(where.rows());
    with_compute(type, [&]<class T>(T) {
        r.second = arrived(device, run<Slopes>(exec, o, batch_of<T>(shape, inputs), n, device, r.first.slope));
    });
    r.first.value = at::full({}, r.second.loss(n), made(device, type));
    // A tensor that the term does not read has slope 0: its gradient is there, and is 0.
    for (std::size_t k = 0; k < (Slopes ? 3 : 0); ++k) {
        at::Tensor& slope = r.first.slope[k];
        if (inputs[k].given->defined() && !slope.defined()) slope = at::zeros({where.positions()}, made(device, type));
    }
    return r;
}

template <class Site, class Term, bool D, class Inputs>
loss evaluate_inputs(const Site& site, const objective<Term, D>& o, const Inputs& inputs, const placement& where,
                     at::ScalarType type, std::optional<double> denominator) {
    if (!wants_gradient(inputs)) {
        const auto [result, sums] = compute<false>(site, o, inputs, where, type, denominator);
        return {result.value, sums};
    }
    const auto [result, sums] = compute<true>(site, o, inputs, where, type, denominator);
    const at::Tensor value =
        loss_node::apply(&result, or_empty(*inputs[0].given), or_empty(*inputs[1].given), or_empty(*inputs[2].given));
    return {value, sums};
}

}  // namespace detail

// The loss of a batch of tokens: value in float32, or in float64 as soon as one input is. Gradients reach logp, entropy
// and values, in their own type and shape. denominator: objective.over.denominator(count of this batch) if left out;
// give the global one for micro-batches and ranks.
template <class Term, bool D, class Exec = serial>
loss evaluate(const objective<Term, D>& o, const token_tensors& x, std::optional<double> denominator = {},
              const Exec& exec = {}) {
    constexpr const char* function = "libtorch::evaluate";
    auto inputs = detail::inputs_of(x);
    const unsigned reads = detail::reads(o.term);
    const detail::named_tensor& leader = detail::leader_of(function, inputs, reads);
    const auto site = detail::site_of(function, leader.name, exec, *leader.given);
    const auto type = detail::check_inputs(function, inputs, reads, site.device());
    const detail::placement where = detail::place(function, leader.name, *leader.given, x.mask, x.cu_seqlens);
    detail::flatten(function, inputs, where, type);
    return detail::evaluate_inputs(site, o, inputs, where, type, denominator);
}

// The loss of a batch of pairs, or of a reward model's scores. Gradients reach chosen, rejected and gold.
template <class Term, bool D, class Exec = serial>
loss evaluate(const objective<Term, D>& o, const pair_tensors& x, std::optional<double> denominator = {},
              const Exec& exec = {}) {
    constexpr const char* function = "libtorch::evaluate";
    auto inputs = detail::inputs_of(x);
    const unsigned reads = detail::reads(o.term);
    const detail::named_tensor& leader = detail::leader_of(function, inputs, reads);
    const at::Tensor& like = *leader.given;
    const auto site = detail::site_of(function, leader.name, exec, like);
    const auto type = detail::check_inputs(function, inputs, reads, site.device());
    const detail::placement where = detail::place_pairs(function, inputs, like);
    detail::flatten(function, inputs, where, type);
    return detail::evaluate_inputs(site, o, inputs, where, type, denominator);
}

}  // namespace libtorch
}  // namespace grpo::inline v0
