// What the head's contestants, ours and LibTorch's, are given: pointers into memory that the case owns.
#pragma once

#include <cstdint>

namespace bench {

enum class storage { f32, bf16 };

inline std::int64_t bytes_of(storage type) {
    return type == storage::f32 ? 4 : 2;
}

/// From the logits of a batch to its loss. Every sequence has the same number of tokens.
struct head_inputs {
    std::int64_t tokens = 0;
    std::int64_t vocabulary = 0;
    std::int64_t per_sequence = 0;
    storage type = storage::f32;
    void* logits = nullptr;  // [tokens, vocabulary]
    const std::int64_t* targets = nullptr;
    double temperature = 1.0;
    const float* d_logp = nullptr;  // for a backward pass alone
    const float* logp_old = nullptr;
    const float* logp_ref = nullptr;
    const float* advantage = nullptr;  // one per sequence
    const std::uint8_t* mask = nullptr;
    double low = 0.2;
    double high = 0.2;
    double beta = 0.04;

    std::int64_t sequences() const { return tokens / per_sequence; }
};

/// The same from the hidden states, one matrix product earlier; `logits` is not read.
struct linear_inputs {
    head_inputs head;
    std::int64_t width = 0;
    const void* hidden = nullptr;  // [tokens, width], as head.type says
    const void* weight = nullptr;  // [vocabulary, width]
};

}  // namespace bench
