// The peer: the same work in LibTorch, behind an interface that costs its users no torch header.
// Each class prepares its tensors once; run() is what is timed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace peer {

/// Asks for the AVX-512 kernels, which some builds leave unused. Only works before the first tensor of the process.
void prefer_avx512();

void set_threads(int n);

/// Version and dispatch level.
std::string describe();

enum class policy_form {
    trl,     // as TRL's GRPO trainer writes it, autograd
    verl,    // as verl writes it: max of negated surrogates, clamped k3, autograd
    lean,    // fewest operations we found that autograd can still differentiate
    closed,  // no autograd: gradient derived by hand, every result in a buffer made beforehand
};

struct policy_inputs {
    std::int64_t rows = 0;
    std::int64_t width = 0;
    const float* logp = nullptr;
    const float* logp_old = nullptr;
    const float* logp_ref = nullptr;
    const float* advantage = nullptr;  // one per row
    const std::uint8_t* mask = nullptr;
    double low = 0.2;
    double high = 0.2;
    double beta = 0.04;
};

/// Clipped surrogate plus beta * k3, mean over active tokens, with its gradient in logp.
class policy_loss {
public:
    policy_loss(const policy_inputs& in, policy_form form);
    ~policy_loss();
    double run();
    const float* gradient() const;

private:
    struct state;
    std::unique_ptr<state> s_;
};

enum class gae_form {
    trl,      // loop over time on columns of [rows, width], no mask in the loop
    verl,     // the same with the mask's arithmetic in the loop
    hoisted,  // all temporal differences at once, then one in-place multiply-add per step on contiguous time-major rows
};

struct gae_inputs {
    std::int64_t rows = 0;
    std::int64_t width = 0;
    const float* reward = nullptr;
    const float* value = nullptr;
    const std::uint8_t* mask = nullptr;  // read by verl alone
    double gamma = 1.0;
    double lambda = 0.95;
};

/// Advantages and returns of every token; whitening is left out.
class gae {
public:
    gae(const gae_inputs& in, gae_form form);
    ~gae();
    void run();
    const float* advantage() const;
    const float* returns() const;

private:
    struct state;
    std::unique_ptr<state> s_;
};

enum class group_form {
    trl,        // mean and std, each repeated to one per reward
    broadcast,  // mean and std kept as columns
    together,   // std_mean in one call, in-place arithmetic, inference mode
};

/// (reward - mean) / (std + eps) in groups of `size` consecutive rewards, ddof = 1.
class group_normalise {
public:
    group_normalise(const float* reward, std::int64_t count, std::int64_t size, double eps, group_form form);
    ~group_normalise();
    void run();
    const float* advantage() const;

private:
    struct state;
    std::unique_ptr<state> s_;
};

}  // namespace peer
