// Advantages, group statistics, GAE and whitening of tensors. Nothing here is differentiable: results carry no graph.
// They are float32, or float64 where an input is.
#pragma once

#include <grpo/adapt/torch/site.hpp>
#include <grpo/adapt/torch/tensors.hpp>

#include <initializer_list>
#include <utility>
#include <vector>

namespace grpo::inline v0 {
namespace libtorch {

// One entry per group: its size, the mean and deviation of its rewards, and whether all of them are equal.
struct group_summary {
    at::Tensor size{}, mean{}, deviation{}, degenerate{};
};

struct estimates {
    at::Tensor advantage{}, returns{};
};

// grpo::gae_inputs as tensors: [rows, width] with an optional mask, or [tokens] with cu_seqlens; what is left undefined
// does not apply. The flags are booleans or integers. Rollouts of shape [time, environments]: pass their transpose.
struct gae_tensors {
    at::Tensor reward{}, value{};
    at::Tensor terminated{}, truncated{}, bootstrap{}, discount{}, lambda_token{}, lambda_sequence{};
    at::Tensor mask{}, cu_seqlens{};
};

// The steps of all responses, one after the other: response i has the steps offsets[i] to offsets[i + 1]; end[j] is the
// last token of step j, counted from the start of its response. Tokens: mask [rows, width], or [tokens] with
// cu_seqlens.
struct step_tensors {
    at::Tensor offsets{}, end{}, reward{};
    at::Tensor mask{}, cu_seqlens{};
};

// What recipe::advantage_rule::by_token reads, as tensors: rewards flat in the order of the groups, one per response;
// the others as its estimator needs them. Tokens: a mask [responses, width], or [tokens] with cu_seqlens.
struct advantage_tensors {
    at::Tensor rewards{};
    at::Tensor logp_old{}, logp_ref{}, values{}, greedy_rewards{}, sum_probability_squared{};
    at::Tensor mask{}, cu_seqlens{};
};

namespace detail {

inline at::ScalarType common_type(std::initializer_list<const at::Tensor*> all) {
    for (const at::Tensor* x : all) {
        if (x->defined() && x->scalar_type() == at::kDouble) return at::kDouble;
    }
    return at::kFloat;
}

inline at::Tensor responses(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    if (!x.defined()) refuse(function, name, "is missing, but is needed");
    check_floating(function, name, x, device);
    return x.detach().to(compute_of(x)).contiguous().view({-1});
}

inline at::Tensor flags_of(const char* function, const char* name, const at::Tensor& x, const placement& where) {
    if (!x.defined()) return x;
    check_not_complex(function, name, x, where.like.device());
    if (x.sizes() != where.like.sizes()) {
        require(complain(function, name, "has the shape %s, but the batch has %s", sizes_of(x).c_str(),
                         sizes_of(where.like).c_str()));
    }
    return x.ne(0).contiguous().view({-1});
}

inline at::Tensor floats_of(const char* function, const char* name, const at::Tensor& x, const placement& where,
                            at::ScalarType type) {
    if (!x.defined()) return x;
    check_floating(function, name, x, where.like.device());
    return flattened(function, name, x, where, type);
}

// The tensor that says where tokens are, and its name, if nothing but the mask or the offsets is known.
inline std::pair<const char*, const at::Tensor&> where_tokens_are(const char* function, const at::Tensor& mask,
                                                                  const at::Tensor& cu_seqlens) {
    if (mask.defined()) return {"mask", mask};
    if (!cu_seqlens.defined()) refuse(function, "mask", "is missing, and so is cu_seqlens: one of them is needed");
    return {"cu_seqlens", cu_seqlens};
}
inline placement place_tokens(const char* function, const at::Tensor& mask, const at::Tensor& cu_seqlens,
                              at::Device device) {
    const auto [name, like] = where_tokens_are(function, mask, cu_seqlens);
    check_memory(function, name, like, device);
    if (mask.defined()) return place(function, name, mask, mask, cu_seqlens);
    const at::Tensor offsets = as_offsets(function, name, cu_seqlens, device);
    return place(function, name, at::empty({offsets[-1].item<std::int64_t>()}, made(device, at::kFloat)), {}, cu_seqlens);
}

// Offsets of groups are checked on the host, and then brought to where they are read.
inline at::Tensor group_offsets(const char* function, const grouping& groups, std::int64_t responses, at::Device device) {
    return groups.offsets(function, responses).to(device);
}
inline auto groups_at(const at::Tensor& offsets, std::int64_t responses) {
    return ragged(read<std::int64_t>(offsets), responses);
}

// The memory that a rule writes to: the results, and what lies in between.
template <class T>
recipe::token_outputs<T> outputs_of(const estimates& e, const at::Tensor& between, std::int64_t rows) {
    T* const p = static_cast<T*>(between.data_ptr());
    const std::int64_t positions = e.advantage.numel();
    return {write<T>(e.advantage),
            write<T>(e.returns),
            {p + 2 * positions, rows},
            {p, positions},
            {p + positions, positions}};
}

}  // namespace detail

// Advantages and returns per token by the rule, any estimator but gdpo; 0 where masked. `returns` is the critic's
// target for gae and vapo, and 0 for what has one number per response.
template <class Exec = serial>
estimates advantages(const recipe::advantage_rule& rule, const advantage_tensors& x, const grouping& groups,
                     const Exec& exec = {}) {
    constexpr const char* function = "libtorch::advantages";
    const auto [name_of_like, like] = detail::where_tokens_are(function, x.mask, x.cu_seqlens);
    const auto site = detail::site_of(function, name_of_like, exec, like);
    const at::Device device = site.device();
    const detail::placement where = detail::place_tokens(function, x.mask, x.cu_seqlens, device);
    const auto type = detail::common_type(
        {&x.rewards, &x.logp_old, &x.logp_ref, &x.values, &x.greedy_rewards, &x.sum_probability_squared});
    const at::Tensor rewards = detail::responses(function, "rewards", x.rewards, device).to(type);
    const at::Tensor offsets = detail::group_offsets(function, groups, rewards.numel(), device);
    const auto tokens = [&](const char* name, const at::Tensor& t) {
        return detail::floats_of(function, name, t, where, type);
    };
    const at::Tensor old = tokens("logp_old", x.logp_old);
    const at::Tensor ref = tokens("logp_ref", x.logp_ref);
    const at::Tensor values = tokens("values", x.values);
    const at::Tensor squared = tokens("sum_probability_squared", x.sum_probability_squared);
    at::Tensor greedy = x.greedy_rewards;
    if (greedy.defined()) greedy = detail::responses(function, "greedy_rewards", greedy, device).to(type);
    const std::int64_t positions = where.positions();
    const auto made = detail::made(device, type);
    const estimates out{at::zeros({positions}, made), at::zeros({positions}, made)};
    const at::Tensor between = at::empty({2 * positions + where.rows()}, made);
    detail::with_compute(type, [&]<class T>(T) {
        using detail::read;
        const recipe::token_inputs<T> in{read<T>(rewards), read<T>(old),    read<T>(ref),
                                         read<T>(values),  read<T>(greedy), read<T>(squared)};
        rule.by_token(site.executor(where.rows()), detail::groups_at(offsets, rewards.numel()), where.shape(), in,
                      detail::outputs_of<T>(out, between, where.rows()));
    });
    return {where.restored(out.advantage), where.restored(out.returns)};
}

// One advantage per response by the rule's estimator (recipe::advantages("rloo"), ...), shaped like the rewards, which
// are flat in the order of the groups or [groups, group size].
template <class Exec = serial>
at::Tensor advantages(const recipe::advantage_rule& rule, const at::Tensor& rewards, const grouping& groups,
                      const Exec& exec = {}) {
    constexpr const char* function = "libtorch::advantages";
    if (!rewards.defined()) detail::refuse(function, "rewards", "is missing, but is needed");
    const auto site = detail::site_of(function, "rewards", exec, rewards);
    const at::Tensor r = detail::responses(function, "rewards", rewards, site.device());
    const at::Tensor offsets = detail::group_offsets(function, groups, r.numel(), site.device());
    const at::Tensor out = at::empty_like(r);
    detail::with_compute(r.scalar_type(), [&]<class T>(T) {
        rule.by_sequence(site.executor(r.numel()), detail::groups_at(offsets, r.numel()), detail::read<T>(r),
                         detail::write<T>(out));
    });
    return out.view(rewards.sizes());
}

// On the CPU alone.
inline group_summary group_statistics(const at::Tensor& rewards, const grouping& groups,
                                      const group_options& options = {}) {
    constexpr const char* function = "libtorch::group_statistics";
    const at::Tensor r = detail::responses(function, "rewards", rewards);
    const at::Tensor offsets = groups.offsets(function, r.numel());
    const std::int64_t n = offsets.size(0) - 1;
    std::vector<group_report> reports(static_cast<std::size_t>(n));
    const at::Tensor scratch = at::empty_like(r);
    detail::with_compute(r.scalar_type(), [&]<class T>(T) {
        group_normalised(ragged(detail::read<std::int64_t>(offsets)), detail::read<T>(r), detail::write<T>(scratch),
                         options, view(reports));
    });
    group_summary s{at::empty({n}, at::kLong), at::empty({n}, r.options()), at::empty({n}, r.options()),
                    at::empty({n}, at::kBool)};
    detail::with_compute(r.scalar_type(), [&]<class T>(T) {
        for (std::int64_t g = 0; g < n; ++g) {
            const group_report& one = reports[static_cast<std::size_t>(g)];
            detail::write<std::int64_t>(s.size)[g] = one.size;
            detail::write<T>(s.mean)[g] = static_cast<T>(one.mean);
            detail::write<T>(s.deviation)[g] = static_cast<T>(one.std);
            detail::write<bool>(s.degenerate)[g] = one.degenerate;
        }
    });
    return s;
}

// grpo::gae: advantages and returns, shaped like the rewards; 0 where masked.
template <class Exec = serial>
estimates gae(const gae_tensors& x, const gae_options& options = {}, const Exec& exec = {}) {
    constexpr const char* function = "libtorch::gae";
    if (!x.reward.defined()) detail::refuse(function, "reward", "is missing, but is needed");
    if (!x.value.defined()) detail::refuse(function, "value", "is missing, but is needed");
    const auto site = detail::site_of(function, "reward", exec, x.reward);
    detail::check_memory(function, "reward", x.reward, site.device());
    const detail::placement where = detail::place(function, "reward", x.reward, x.mask, x.cu_seqlens);
    const auto type =
        detail::common_type({&x.reward, &x.value, &x.bootstrap, &x.discount, &x.lambda_token, &x.lambda_sequence});
    const auto floats = [&](const char* name, const at::Tensor& t) {
        return detail::floats_of(function, name, t, where, type);
    };
    const auto flags = [&](const char* name, const at::Tensor& t) {
        return detail::flags_of(function, name, t, where);
    };
    const at::Tensor reward = floats("reward", x.reward);
    const at::Tensor value = floats("value", x.value);
    const at::Tensor bootstrap = floats("bootstrap", x.bootstrap);
    const at::Tensor discount = floats("discount", x.discount);
    const at::Tensor lambda_token = floats("lambda_token", x.lambda_token);
    const at::Tensor terminated = flags("terminated", x.terminated);
    const at::Tensor truncated = flags("truncated", x.truncated);
    at::Tensor lambda_sequence = x.lambda_sequence;
    if (lambda_sequence.defined())
        lambda_sequence = detail::responses(function, "lambda_sequence", lambda_sequence, site.device()).to(type);
    const estimates out{at::empty_like(reward), at::empty_like(reward)};
    detail::with_compute(type, [&]<class T>(T) {
        const gae_inputs<T, bool> in{detail::read<T>(reward),        detail::read<T>(value),
                                     detail::read<bool>(terminated), detail::read<bool>(truncated),
                                     detail::read<T>(bootstrap),     detail::read<T>(discount),
                                     detail::read<T>(lambda_token),  detail::read<T>(lambda_sequence)};
        grpo::gae(site.executor(where.rows()), where.shape(), in, options, detail::write<T>(out.advantage), detail::write<T>(out.returns));
    });
    return {where.restored(out.advantage), where.restored(out.returns)};
}

// grpo::whiten over the entries where the mask (of the same shape; left out: all of them) is not 0; 0 elsewhere.
template <class Exec = serial>
at::Tensor whiten(const at::Tensor& x, const at::Tensor& mask = {}, const whiten_options& options = {},
                  const Exec& exec = {}) {
    constexpr const char* function = "libtorch::whiten";
    if (!x.defined()) detail::refuse(function, "x", "is missing, but is needed");
    const auto site = detail::site_of(function, "x", exec, x);
    const at::Tensor flat = detail::responses(function, "x", x, site.device());
    const at::Tensor use = detail::as_mask(function, mask, x);
    const at::Tensor out = at::empty_like(flat);
    detail::with_compute(flat.scalar_type(), [&]<class T>(T) {
        grpo::whiten(site.executor(1), padded(1, flat.numel()).where(detail::read<bool>(use)), detail::read<T>(flat),
                     detail::write<T>(out), options);
    });
    return out.view(x.sizes());
}

// grpo::process_supervision: step rewards, normalised within each group, to token advantages; shaped like the mask, or
// [tokens] by cu_seqlens.
template <class Exec = serial>
at::Tensor process_supervision(const step_tensors& x, const grouping& groups, const process_options& options = {},
                               const Exec& exec = {}) {
    constexpr const char* function = "libtorch::process_supervision";
    const auto [name_of_like, like] = detail::where_tokens_are(function, x.mask, x.cu_seqlens);
    const auto site = detail::site_of(function, name_of_like, exec, like);
    const at::Device device = site.device();
    const detail::placement where = detail::place_tokens(function, x.mask, x.cu_seqlens, device);
    const at::Tensor reward = detail::responses(function, "reward", x.reward, device);
    const at::Tensor steps = detail::as_offsets(function, "offsets", x.offsets, device);
    const at::Tensor end = detail::as_integers(function, "end", x.end, device);
    const at::Tensor offsets = detail::group_offsets(function, groups, where.rows(), device);
    const at::Tensor normalised = at::empty_like(reward);
    const at::Tensor out = at::empty({where.positions()}, reward.options());
    detail::with_compute(reward.scalar_type(), [&]<class T>(T) {
        const reasoning_steps<T> all{detail::read<std::int64_t>(steps), detail::read<std::int64_t>(end),
                                     detail::read<T>(reward)};
        grpo::process_supervision(site.executor(where.rows()), detail::groups_at(offsets, where.rows()), where.shape(), all,
                                  detail::write<T>(normalised), detail::write<T>(out), options);
    });
    return where.restored(out);
}

}  // namespace libtorch
}  // namespace grpo::inline v0
