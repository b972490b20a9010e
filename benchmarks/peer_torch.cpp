#include "peer_torch.hpp"

#include <dlfcn.h>
#include <torch/torch.h>

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "peer_torch_loss.hpp"

namespace peer {

using torch::Tensor;

namespace {

Tensor copy(const float* p, at::IntArrayRef sizes) {
    return torch::from_blob(const_cast<float*>(p), sizes, torch::kFloat32).clone();
}

Tensor copy_mask(const std::uint8_t* p, at::IntArrayRef sizes) {
    return torch::from_blob(const_cast<std::uint8_t*>(p), sizes, torch::kUInt8).to(torch::kFloat32);
}

}  // namespace

void prefer_avx512() {
    if (__builtin_cpu_supports("avx512f")) setenv("ATEN_CPU_CAPABILITY", "avx512", 1);
}

void set_threads(int n) {
    at::set_num_threads(n);
    // OpenBLAS, where LibTorch's matrix products are its own, has a setting of its own.
    if (void* const set = ::dlsym(RTLD_DEFAULT, "openblas_set_num_threads")) reinterpret_cast<void (*)(int)>(set)(n);
}

std::string describe() {
    const std::string config = at::show_config();
    const std::string key = "CPU capability usage: ";
    const auto at_key = config.find(key);
    const std::string dispatch =
        at_key == std::string::npos
            ? "unknown"
            : config.substr(at_key + key.size(), config.find('\n', at_key) - at_key - key.size());
    return "LibTorch " TORCH_VERSION ", dispatch " + dispatch;
}

// ---- policy loss ----------------------------------------------------------------------------------------------

struct policy_loss::state {
    policy_form form;
    double low, high, beta;
    Tensor logp, logp_old, logp_ref, advantage, mask, gradient;
    Tensor floor, ceiling;                       // lean: per-row clip bounds
    Tensor ratio, clipped, d, work, keep_plain;  // closed: buffers

    state(const policy_inputs& in, policy_form f) : form(f), low(in.low), high(in.high), beta(in.beta) {
        const std::int64_t sizes[] = {in.rows, in.width};
        logp = copy(in.logp, sizes);
        logp_old = copy(in.logp_old, sizes);
        logp_ref = copy(in.logp_ref, sizes);
        advantage = copy(in.advantage, {in.rows, 1});
        mask = copy_mask(in.mask, sizes);
        if (form == policy_form::closed) {
            for (Tensor* t : {&ratio, &clipped, &d, &work, &gradient}) *t = torch::empty(sizes);
            keep_plain = torch::empty(sizes, torch::kBool);
        } else {
            logp.requires_grad_(true);
        }
    }

    Tensor trl() const { return trl_terms{logp_old, logp_ref, advantage, mask, low, high, beta}.mean(logp); }

    Tensor verl() const {
        const Tensor log_ratio = torch::clamp(logp - logp_old, -20.0, 20.0);
        const Tensor ratio_ = torch::exp(log_ratio);
        const Tensor plain = -advantage * ratio_;
        const Tensor bounded = -advantage * torch::clamp(ratio_, 1 - low, 1 + high);
        const Tensor token = torch::maximum(plain, bounded);
        const Tensor policy = (token * mask).sum() / (mask.sum() + 1e-8);
        const Tensor gap = torch::clamp(logp_ref - logp, -20.0, 20.0);
        const Tensor kl = torch::clamp(torch::exp(gap) - gap - 1, -10.0, 10.0);
        return policy + beta * ((kl * mask).sum() / (mask.sum() + 1e-8));
    }

    // min(r A, clip(r) A) = A clamp(r, lo, hi) with the bound that A's sign leaves inactive moved to infinity, which
    // spares two products and the costly backward of min; the masked sum is one dot product.
    Tensor lean() const {
        const double inf = std::numeric_limits<double>::infinity();
        const Tensor up = advantage >= 0;
        const Tensor lo = torch::where(up, -inf, 1 - low).to(torch::kFloat32);
        const Tensor hi = torch::where(up, 1 + high, inf).to(torch::kFloat32);
        const Tensor gap = logp_ref - logp;
        const Tensor surrogate = torch::clamp(torch::exp(logp - logp_old), lo, hi) * advantage;
        const Tensor token = torch::sub(torch::expm1(gap) - gap, surrogate, 1.0 / beta);
        return torch::dot(token.view(-1), mask.view(-1)) * (beta / mask.sum());
    }

    // Buffers: ratio holds A r, clipped holds A clip(r), then their minimum.
    double closed() {
        const torch::NoGradGuard no_grad;
        const Tensor count = mask.sum();
        torch::sub_out(work, logp, logp_old);
        torch::exp_out(ratio, work);
        torch::clamp_out(clipped, ratio, 1 - low, 1 + high);
        ratio.mul_(advantage);
        clipped.mul_(advantage);
        torch::le_out(keep_plain, ratio, clipped);
        torch::minimum_out(clipped, ratio, clipped);
        torch::sub_out(d, logp_ref, logp);
        torch::expm1_out(work, d);
        torch::mul_out(gradient, ratio, keep_plain);
        gradient.add_(work, beta).mul_(mask).div_(-count);
        work.sub_(d).mul_(beta).sub_(clipped);
        return (torch::dot(work.view(-1), mask.view(-1)) / count).item<double>();
    }

    double run() {
        if (form == policy_form::closed) return closed();
        logp.mutable_grad() = Tensor();
        const Tensor loss = form == policy_form::trl ? trl() : form == policy_form::verl ? verl() : lean();
        loss.backward();
        gradient = logp.grad();
        return loss.item<double>();
    }
};

policy_loss::policy_loss(const policy_inputs& in, policy_form form) : s_(std::make_unique<state>(in, form)) {}
policy_loss::~policy_loss() = default;
double policy_loss::run() {
    return s_->run();
}
const float* policy_loss::gradient() const {
    return s_->gradient.data_ptr<float>();
}

// ---- GAE ------------------------------------------------------------------------------------------------------

struct gae::state {
    gae_form form;
    std::int64_t width;
    double gamma, lambda;
    Tensor reward, value, mask, advantage, returns;

    state(const gae_inputs& in, gae_form f) : form(f), width(in.width), gamma(in.gamma), lambda(in.lambda) {
        const std::int64_t sizes[] = {in.rows, in.width};
        reward = copy(in.reward, sizes);
        value = copy(in.value, sizes);
        mask = copy_mask(in.mask, sizes);
    }

    void finish(std::vector<Tensor>& reversed) {
        std::reverse(reversed.begin(), reversed.end());
        advantage = torch::stack(reversed, 1);
        returns = advantage + value;
    }

    void trl() {
        const torch::NoGradGuard no_grad;
        std::vector<Tensor> reversed;
        Tensor carry = torch::zeros({reward.size(0)});
        for (std::int64_t t = width; t-- > 0;) {
            const Tensor now = value.select(1, t);
            const Tensor delta =
                t + 1 < width ? reward.select(1, t) + gamma * value.select(1, t + 1) - now : reward.select(1, t) - now;
            carry = delta + gamma * lambda * carry;
            reversed.push_back(carry);
        }
        finish(reversed);
    }

    void verl() {
        const torch::NoGradGuard no_grad;
        std::vector<Tensor> reversed;
        Tensor carry = torch::zeros({reward.size(0)});
        Tensor next = torch::zeros({reward.size(0)});
        for (std::int64_t t = width; t-- > 0;) {
            const Tensor now = value.select(1, t);
            const Tensor on = mask.select(1, t);
            const Tensor delta = reward.select(1, t) + gamma * next - now;
            const Tensor step = delta + gamma * lambda * carry;
            next = now * on + (1 - on) * next;
            carry = step * on + (1 - on) * carry;
            reversed.push_back(carry);
        }
        finish(reversed);
    }

    void hoisted() {
        const c10::InferenceMode inference;
        Tensor delta = reward - value;
        delta.narrow(1, 0, width - 1).add_(value.narrow(1, 1, width - 1), gamma);
        delta = delta.t().contiguous();
        const std::vector<Tensor> rows = delta.unbind(0);
        for (std::size_t t = rows.size() - 1; t-- > 0;) rows[t].add_(rows[t + 1], gamma * lambda);
        advantage = delta.t().contiguous();
        returns = advantage + value;
    }

    void run() {
        if (form == gae_form::trl) trl();
        if (form == gae_form::verl) verl();
        if (form == gae_form::hoisted) hoisted();
    }
};

gae::gae(const gae_inputs& in, gae_form form) : s_(std::make_unique<state>(in, form)) {}
gae::~gae() = default;
void gae::run() {
    s_->run();
}
const float* gae::advantage() const {
    return s_->advantage.data_ptr<float>();
}
const float* gae::returns() const {
    return s_->returns.data_ptr<float>();
}

// ---- group normalisation --------------------------------------------------------------------------------------

struct group_normalise::state {
    group_form form;
    std::int64_t size;
    double eps;
    Tensor reward, advantage;

    void trl() {
        const torch::NoGradGuard no_grad;
        const Tensor grouped = reward.view({-1, size});
        const Tensor mean = grouped.mean(1).repeat_interleave(size, 0);
        const Tensor deviation = grouped.std(1).repeat_interleave(size, 0);
        advantage = (reward - mean) / (deviation + eps);
    }

    void broadcast() {
        const torch::NoGradGuard no_grad;
        const Tensor grouped = reward.view({-1, size});
        advantage = (grouped - grouped.mean(1, true)) / (grouped.std(1, true, true) + eps);
    }

    void together() {
        const c10::InferenceMode inference;
        const Tensor grouped = reward.view({-1, size});
        auto [deviation, mean] = torch::std_mean(grouped, at::IntArrayRef{1}, true, true);
        advantage = torch::sub(grouped, mean).div_(deviation.add_(eps));
    }

    void run() {
        if (form == group_form::trl) trl();
        if (form == group_form::broadcast) broadcast();
        if (form == group_form::together) together();
    }
};

group_normalise::group_normalise(const float* reward, std::int64_t count, std::int64_t size, double eps,
                                 group_form form)
    : s_(new state{form, size, eps, copy(reward, {count}), Tensor()}) {}
group_normalise::~group_normalise() = default;
void group_normalise::run() {
    s_->run();
}
const float* group_normalise::advantage() const {
    return s_->advantage.data_ptr<float>();
}

}  // namespace peer
