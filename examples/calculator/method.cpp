// Everything about methods that does not depend on the type of their loss.
#include "method.hpp"

namespace calculator {

namespace recipe = grpo::recipe;
using recipe::estimator;

namespace {

template <class T>
grpo::view<const T> read(const at::Tensor& x) {
    return x.defined() ? grpo::view<const T>(x.data_ptr<T>(), x.numel()) : grpo::view<const T>();
}
template <class T>
grpo::view<T> write(const at::Tensor& x) {
    return {x.data_ptr<T>(), x.numel()};
}

auto tokens_of(const experience& e) {
    return grpo::ragged(read<std::int64_t>(e.offsets));
}
auto groups_of(const experience& e) {
    return grpo::padded(e.rows() / e.group_size, e.group_size);
}

// One entry per response for each of its tokens.
at::Tensor spread(const experience& e, const at::Tensor& per_response) {
    const at::Tensor out = torch::empty({e.tokens()});
    grpo::spread_to_tokens(grpo::serial{}, tokens_of(e), read<float>(per_response), write<float>(out));
    return out;
}

auto selection_batch(const experience& e) {
    return grpo::batch(tokens_of(e), grpo::logp(read<float>(e.logp_old)), grpo::logp_old(read<float>(e.logp_old)),
                       grpo::logp_rollout(read<float>(e.logp_rollout)), grpo::entropy(read<float>(e.entropy_old)),
                       grpo::advantage(read<float>(e.advantage)));
}

}  // namespace

origin method::samples() const {
    const std::string name = card_.name;
    if (name == "sft" || name == "dft") return origin::solutions;
    return name == "rft" || name == "dpo" ? origin::start : origin::policy;
}

bool method::has_critic() const {
    return card_.advantage.kind == estimator::gae || card_.advantage.kind == estimator::vapo;
}

bool method::needs_reference() const {
    return loss_reads_reference() || added_kl_ != 0 || card_.advantage.kl.beta != 0;
}

bool method::needs_old() const {
    return has_critic() || card_.advantage.kl.beta != 0 || card_.advantage.kind == estimator::otb ||
           card_.selection.kind != recipe::selector::none || card_.corrected == recipe::correction_use::always;
}

void method::prepare(experience& e) const {
    e.count = grpo::count(tokens_of(e));
    if (options_.by == supervision::process) {
        supervise_steps(e);
    } else if (card_.advantage.kind == estimator::gdpo) {
        mix_rewards(e);
    } else if (card_.advantage.kind != estimator::none) {
        estimate(e);
    }
    if (card_.selection.kind != recipe::selector::none) select(e);
    if (card_.corrected == recipe::correction_use::always) weigh(e);
}

void method::estimate(experience& e) const {
    e.advantage = torch::empty({e.tokens()});
    e.returns = torch::empty({e.tokens()});
    const at::Tensor of_response = torch::empty({e.rows()});
    const at::Tensor of_token = torch::empty({e.tokens()});
    const at::Tensor baseline = torch::empty({e.tokens()});
    const recipe::token_inputs<float> in{.reward = read<float>(e.reward),
                                         .logp_old = read<float>(e.logp_old),
                                         .logp_ref = read<float>(e.logp_ref),
                                         .value = read<float>(e.values_old),
                                         .greedy_reward = read<float>(e.greedy_reward),
                                         .sum_probability_squared = read<float>(e.sum_probability_squared)};
    card_.advantage.by_token(groups_of(e), tokens_of(e), in,
                             {.advantage = write<float>(e.advantage),
                              .returns = write<float>(e.returns),
                              .per_sequence = write<float>(of_response),
                              .reward_token = write<float>(of_token),
                              .baseline = write<float>(baseline)});
}

void method::supervise_steps(experience& e) const {
    const grpo::group_options& g = card_.advantage.group;
    e.advantage = grpo::libtorch::process_supervision(
        {.offsets = e.step_offsets, .end = e.step_end, .reward = e.step_reward, .cu_seqlens = e.offsets}, e.group_size,
        {.ddof = g.ddof, .eps = g.eps, .placement = g.placement});
}

void method::mix_rewards(experience& e) const {
    const at::Tensor weights = torch::ones({e.components.size(0)});
    const at::Tensor scratch = torch::empty({e.rows()});
    const at::Tensor mixed = torch::empty({e.rows()});
    grpo::gdpo(groups_of(e),
               grpo::gdpo_inputs<float>{.reward = read<float>(e.components), .weight = read<float>(weights)},
               write<float>(scratch), write<float>(mixed), {card_.advantage.group, card_.advantage.whitening});
    e.advantage = spread(e, mixed);
}

void method::select(experience& e) const {
    e.keep = torch::empty({e.tokens()});
    const auto keep = write<float>(e.keep);
    const auto batch = selection_batch(e);
    switch (card_.selection.kind) {
        case recipe::selector::clip_cov:
            grpo::select_clip_cov(batch, grpo::clipped{}, card_.selection.band, keep);
            break;
        case recipe::selector::kl_cov:
            grpo::select_kl_cov(batch, card_.selection.band.fraction, keep);
            break;
        case recipe::selector::top_entropy:
            grpo::select_top_entropy(batch, card_.selection.share, keep);
            break;
        default:
            grpo::select_m2po(batch, card_.selection.threshold, keep);
    }
}

void method::weigh(experience& e) const {
    e.weight = torch::empty({e.tokens()});
    grpo::correction_weights(selection_batch(e), card_.correction, write<float>(e.weight));
}

grpo::libtorch::token_tensors method::tensors(const outlook& o, const experience& e, const packed& p) const {
    grpo::libtorch::token_tensors x;
    x.logp = o.logp;
    x.logp_old = e.logp_old.defined() ? p.of(e.logp_old) : o.logp.detach();
    if (needs_reference() || e.shown_piece() == p.number) x.logp_ref = p.of(e.logp_ref);
    x.logp_rollout = p.of(e.logp_rollout);
    x.advantage = p.of(e.advantage);
    x.weight = p.of(e.weight);
    x.keep = p.of(e.keep);
    x.cu_seqlens = p.offsets;
    x.label = p.of(e.label_of_token);
    return x;
}

at::Tensor method::added(const outlook& o, const experience& e, const packed& p, const grpo::aggregation& over,
                         measured& m) const {
    at::Tensor sum = torch::zeros({});
    const auto tokens = static_cast<double>(e.count.tokens);
    if (has_critic()) {
        const grpo::objective critic{options_.critic * grpo::value_loss{}, grpo::aggregation::token_mean()};
        const auto l = grpo::libtorch::evaluate(
            critic,
            {.values = o.values, .values_old = p.of(e.values_old), .returns = p.of(e.returns), .cu_seqlens = p.offsets},
            tokens);
        m.critic_loss += l.value.item<double>();
        sum = sum + l.value;
    }
    if (card_.advantage.kind == estimator::vapo) {
        const grpo::objective imitation{grpo::positive_nll{}, grpo::aggregation::token_mean()};
        const double right = e.label_of_token.sum().item<double>();
        sum = sum + grpo::libtorch::evaluate(
                        imitation, {.logp = o.logp, .label = p.of(e.label_of_token), .cu_seqlens = p.offsets}, right)
                        .value;
    }
    if (added_kl_ != 0) {
        const grpo::objective leash{added_kl_ * grpo::kl{}, over};
        sum = sum + grpo::libtorch::evaluate(leash,
                                             {.logp = o.logp, .logp_ref = p.of(e.logp_ref), .cu_seqlens = p.offsets},
                                             over.denominator(e.count))
                        .value;
    }
    return sum;
}

}  // namespace calculator
