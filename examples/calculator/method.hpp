// What a method makes of sampled responses: advantages, masks and weights beforehand, and the loss of each piece.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "outlook.hpp"
#include "settings.hpp"

namespace calculator {

// Whose responses a method learns from.
enum class origin {
    policy,     // the model as it now is
    start,      // the model that training began with: rft, dpo
    solutions,  // the worked solutions: sft, dft
};

// Everything about the responses of a step. One entry per response or, flat, per token; what a method does not ask for
// stays undefined.
struct experience {
    std::vector<packed> pieces;
    std::int64_t group_size = 0;
    at::Tensor offsets;  // [rows + 1]

    at::Tensor reward;      // [rows]: right or not, shaped
    at::Tensor components;  // [3, rows]: answer, share of right steps, form
    at::Tensor label;       // [rows]: right or not
    at::Tensor label_of_token;
    at::Tensor greedy_reward;
    at::Tensor step_offsets, step_end, step_reward;

    at::Tensor logp_rollout, logp_old, logp_ref, entropy_old, values_old, sum_probability_squared;
    at::Tensor advantage, returns, weight, keep;
    std::vector<std::pair<std::int64_t, std::int64_t>> pairs;  // rows of a right and of a wrong response to one prompt

    grpo::totals count;

    std::int64_t rows() const { return label.size(0); }
    // The piece whose KL to the reference is shown where the method does not need it of all.
    std::size_t shown_piece() const { return pieces.size() / 2; }
    std::int64_t tokens() const { return label_of_token.size(0); }
};

// Sums over tokens of one piece, as the loss was reduced; they add up.
struct measured {
    double loss = 0;
    double critic_loss = 0;
    double weight = 0;  // of the metrics below
    double clipped = 0;
    double entropy = 0;
    double moved = 0;       // the k3 estimate of KL(π_old ‖ π)
    double ref_weight = 0;  // of the next
    double kl = 0;          // the k1 estimate of KL(π ‖ π_ref)

    void add(const measured& x) {
        loss += x.loss, critic_loss += x.critic_loss, weight += x.weight, clipped += x.clipped, entropy += x.entropy;
        moved += x.moved, ref_weight += x.ref_weight, kl += x.kl;
    }
};

class method {
public:
    method(const grpo::recipe::card& what, const method_options& o) : card_(what), options_(o) {}
    method(const method&) = delete;
    method& operator=(const method&) = delete;
    virtual ~method() = default;

    const grpo::recipe::card& card() const { return card_; }
    origin samples() const;
    bool has_critic() const;
    bool needs_reference() const;
    // Whether log-probabilities, entropies and values are needed before the first update.
    bool needs_old() const;
    bool needs_greedy() const { return card_.advantage.kind == grpo::recipe::estimator::remax; }
    virtual bool of_pairs() const { return false; }

    // Fills advantage, returns, keep and weight as the recipe has them.
    void prepare(experience& e) const;

    // The loss of one piece, to be added to those of the others; the sums of its metrics go to m.
    virtual at::Tensor loss(const outlook& o, const experience& e, const packed& p, measured& m) const = 0;

protected:
    virtual bool loss_reads_reference() const = 0;

    grpo::libtorch::token_tensors tensors(const outlook& o, const experience& e, const packed& p) const;
    // The critic's loss, VAPO's likelihood of right responses, and a KL that the recipe itself does not have.
    at::Tensor added(const outlook& o, const experience& e, const packed& p, const grpo::aggregation& over,
                     measured& m) const;

    grpo::recipe::card card_;
    method_options options_;
    double added_kl_ = 0;

private:
    void estimate(experience& e) const;
    void supervise_steps(experience& e) const;
    void mix_rewards(experience& e) const;
    void select(experience& e) const;
    void weigh(experience& e) const;
};

// By name, with the core's sentence for one that does not exist; bad_input for options that it cannot have.
std::unique_ptr<method> make_method(const method_options& o);

}  // namespace calculator
