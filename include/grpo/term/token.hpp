// What a term sees of one token, and how a caller names the arrays it comes from.
//
//   batch(shape, logp(x), logp_old(y), advantage(by_sequence(a)), logp_ref(r))
//
// Each input is a tag in namespace input; `needs` of a term and `has` of a batch are sets of them, compared at compile
// time. Storage may be double, float or a 16-bit type; terms see only the compute type (float, or double if any input
// is double).
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// One active token. Fields that the term does not need hold their defaults.
template <class S>
struct token {
    using constant = constant_t<S>;

    S logp{};                  // log π_θ(y_t | ·)
    S entropy{};               // H of the policy's distribution at t
    S value{};                 // the critic's V_t
    S full_kl{};               // KL(π_θ ‖ π_ref) over the whole vocabulary at t
    constant logp_old{};       // log π_old: the trainer's own, before the update
    constant logp_ref{};       // log π_ref
    constant logp_rollout{};   // log-probability reported by the rollout engine
    constant logp_teacher{};   // log π_teacher
    constant advantage{};      // Â
    constant weight{};         // rollout-correction weight, a constant
    constant keep{};           // 1 where a selection over the batch picked this token, else 0
    constant label{};          // 1 where the output counts as correct, else 0
    constant value_old{};      // V_t before the update
    constant returns{};        // R_t, the critic's target
    constant length{};         // active tokens of this sequence
    const S* sums = nullptr;   // the term's statistics, summed over the active tokens of this sequence

    GRPO_HD S log_ratio() const { return S(logp - logp_old); }
    GRPO_HD S sequence_sum() const { return sums[0]; }
    GRPO_HD S sequence_mean() const { return S(sums[0] / length); }
};

// The inputs of a token. `bit` is the place in `needs` and `has`; the differentiable ones get a slope each.
namespace input {

struct token_input {
    template <class S>
    using record = token<S>;
};

struct logp : token_input {
    static constexpr unsigned bit = 1u << 0;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "logp";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logp; }
};
struct entropy : token_input {
    static constexpr unsigned bit = 1u << 1;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "entropy";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.entropy; }
};
struct value : token_input {
    static constexpr unsigned bit = 1u << 2;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "value";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.value; }
};
struct logp_old : token_input {
    static constexpr unsigned bit = 1u << 3;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "logp_old";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logp_old; }
};
struct logp_ref : token_input {
    static constexpr unsigned bit = 1u << 4;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "logp_ref";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logp_ref; }
};
struct logp_rollout : token_input {
    static constexpr unsigned bit = 1u << 5;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "logp_rollout";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logp_rollout; }
};
struct logp_teacher : token_input {
    static constexpr unsigned bit = 1u << 6;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "logp_teacher";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.logp_teacher; }
};
struct advantage : token_input {
    static constexpr unsigned bit = 1u << 7;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "advantage";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.advantage; }
};
struct weight : token_input {
    static constexpr unsigned bit = 1u << 8;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "weight";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.weight; }
};
struct label : token_input {
    static constexpr unsigned bit = 1u << 9;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "label";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.label; }
};
struct value_old : token_input {
    static constexpr unsigned bit = 1u << 10;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "value_old";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.value_old; }
};
struct returns : token_input {
    static constexpr unsigned bit = 1u << 11;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "returns";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.returns; }
};
struct keep : token_input {
    static constexpr unsigned bit = 1u << 12;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "keep";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.keep; }
};

struct full_kl : token_input {
    static constexpr unsigned bit = 1u << 13;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "full_kl";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.full_kl; }
};

}  // namespace input

// Marks an array with one entry per sequence; it is broadcast over the sequence's tokens.
template <class T>
struct per_sequence {
    view<const T> data;
};
template <class Container>
auto by_sequence(const Container& values) {
    const view all(values);
    return per_sequence<std::remove_cvref_t<decltype(all[0])>>{{all.data(), all.size()}};
}
// One entry per flat position: the default, spelled out.
template <class Container>
auto by_token(const Container& values) {
    return view(values);
}

// An array and the input it stands for.
template <class Tag, class T, bool BySequence>
struct field {
    using tag = Tag;
    using storage = T;
    static constexpr bool by_sequence = BySequence;
    view<const T> data;
};

template <class Tag, class Container>
auto field_of(const Container& values) {
    const view all(values);
    using T = std::remove_cvref_t<decltype(all[0])>;
    return field<Tag, T, false>{{all.data(), all.size()}};
}
template <class Tag, class T>
auto field_of(const per_sequence<T>& values) {
    return field<Tag, T, true>{values.data};
}

// clang-format off
template <class C> auto logp(const C& x) { return field_of<input::logp>(x); }
template <class C> auto entropy(const C& x) { return field_of<input::entropy>(x); }
template <class C> auto values(const C& x) { return field_of<input::value>(x); }
template <class C> auto full_kl(const C& x) { return field_of<input::full_kl>(x); }
template <class C> auto logp_old(const C& x) { return field_of<input::logp_old>(x); }
template <class C> auto logp_ref(const C& x) { return field_of<input::logp_ref>(x); }
template <class C> auto logp_rollout(const C& x) { return field_of<input::logp_rollout>(x); }
template <class C> auto logp_teacher(const C& x) { return field_of<input::logp_teacher>(x); }
template <class C> auto advantage(const C& x) { return field_of<input::advantage>(x); }
template <class C> auto weight(const C& x) { return field_of<input::weight>(x); }
template <class C> auto keep(const C& x) { return field_of<input::keep>(x); }
template <class C> auto label(const C& x) { return field_of<input::label>(x); }
template <class C> auto values_old(const C& x) { return field_of<input::value_old>(x); }
template <class C> auto returns(const C& x) { return field_of<input::returns>(x); }
// clang-format on

// Where a derivative goes: d loss / d input, divided by the denominator. Masked entries get +0.0. With `add` the
// derivative is added to what is there (several objectives over one batch) and masked entries stay as they are.
template <class Tag, class T, bool Add>
struct gradient {
    using tag = Tag;
    using storage = T;
    static constexpr bool adds = Add;
    view<T> data;

    auto add() const { return gradient<Tag, T, true>{data}; }
};
template <class Tag, class Container>
auto gradient_of(Container&& out) {
    const view all(out);
    return gradient<Tag, std::remove_reference_t<decltype(all[0])>, false>{all};
}

template <class C>
auto d_logp(C&& out) { return gradient_of<input::logp>(out); }
template <class C>
auto d_entropy(C&& out) { return gradient_of<input::entropy>(out); }
template <class C>
auto d_values(C&& out) { return gradient_of<input::value>(out); }
template <class C>
auto d_full_kl(C&& out) { return gradient_of<input::full_kl>(out); }

}  // namespace grpo::inline v0
