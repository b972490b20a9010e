// The peer of the head: from logits or hidden states to log-probabilities, the loss and its gradient, in LibTorch.
// No torch header. Tensors are views of the caller's memory, made once; each operation is what is timed.
#pragma once

#include <cstdint>
#include <memory>

#include "head_inputs.hpp"

namespace peer {

enum class head_form {
    trl,                 // a sequence at a time: gather - logsumexp in f32, log_softmax and gather in bf16; autograd
    log_softmax_gather,  // the same of the whole batch at once, log_softmax for both types; autograd
    cross_entropy,       // cross_entropy without reduction, negated; autograd
    closed,              // f32, no autograd: softmax into a buffer, scaled and scattered into by hand
};

const char* name(head_form form);

/// Results stay until the next operation or release(). closed has no forward pass of its own.
class head {
public:
    head(const bench::head_inputs& in, head_form form);
    ~head();
    void forward();
    /// trl: of a second log_softmax, 128 rows at a time; log_softmax_gather: of the first one.
    void forward_with_entropy();
    /// The gradient of sum(d_logp * logp).
    void forward_backward();
    /// TRL's loss with its gradient: clipped surrogate plus beta * k3, mean over active tokens.
    double loss();

    /// logp and entropy [tokens], as f32 whatever they were computed in.
    const float* logp();
    const float* entropy();
    /// d/dlogits [tokens, vocabulary], of the logits' type.
    const void* gradient() const;
    void release();

private:
    struct state;
    std::unique_ptr<state> s_;
};

/// The language model's last layer and the above. `chunk`: tokens for which logits exist at a time, each chunk with a
/// backward pass of its own that adds to the weight's gradient; 0: all at once.
class linear_head {
public:
    linear_head(const bench::linear_inputs& in, head_form form, std::int64_t chunk);
    ~linear_head();
    void forward();
    double loss();

    const float* logp();
    const void* d_hidden() const;  // [tokens, width], of the inputs' type
    const void* d_weight() const;  // [vocabulary, width], of the inputs' type
    void release();

private:
    struct state;
    std::unique_ptr<state> s_;
};

}  // namespace peer
