#include "peer_torch_head.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <vector>

#include "peer_torch_loss.hpp"

namespace peer {

using torch::Tensor;

namespace {

Tensor view_of(const void* p, at::IntArrayRef sizes, torch::ScalarType type) {
    return torch::from_blob(const_cast<void*>(p), sizes, type);
}

torch::ScalarType type_of(bench::storage type) {
    return type == bench::storage::f32 ? torch::kFloat32 : torch::kBFloat16;
}

trl_terms terms_of(const bench::head_inputs& in) {
    const std::int64_t sizes[] = {in.sequences(), in.per_sequence};
    const auto floats = [&](const float* p) { return p ? view_of(p, sizes, torch::kFloat32) : Tensor(); };
    return {floats(in.logp_old),
            floats(in.logp_ref),
            view_of(in.advantage, {in.sequences(), 1}, torch::kFloat32),
            view_of(in.mask, sizes, torch::kUInt8).to(torch::kFloat32),
            in.low,
            in.high,
            in.beta};
}

Tensor gathered(const Tensor& log_p, const Tensor& targets) {
    return log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
}

/// trl, one sequence at a time. The sequences are split off together: indexing them one by one would cost autograd a
/// zero tensor of the whole batch for each.
Tensor logp_by_sequence(const Tensor& logits, const Tensor& targets, std::int64_t per_sequence) {
    const std::vector<Tensor> rows = logits.split(per_sequence);
    const std::vector<Tensor> ids = targets.split(per_sequence);
    std::vector<Tensor> logp;
    for (std::size_t s = 0; s < rows.size(); ++s) {
        logp.push_back(logits.scalar_type() == torch::kFloat32
                           ? gathered(rows[s], ids[s]) - torch::logsumexp(rows[s], -1)
                           : gathered(torch::log_softmax(rows[s], -1), ids[s]));
    }
    return torch::cat(logp);
}

Tensor logp_of(const Tensor& logits, const Tensor& targets, std::int64_t per_sequence, head_form form) {
    if (form == head_form::trl) return logp_by_sequence(logits, targets, per_sequence);
    if (form == head_form::log_softmax_gather) return gathered(torch::log_softmax(logits, -1), targets);
    const auto each = torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone);
    return -torch::nn::functional::cross_entropy(logits, targets, each);
}

Tensor entropy_of(const Tensor& log_p) {
    return -(torch::exp(log_p) * log_p).sum(-1);
}

Tensor entropy_by_chunks(const Tensor& logits) {
    std::vector<Tensor> each;
    for (const Tensor& rows : logits.split(128)) each.push_back(entropy_of(torch::log_softmax(rows, -1)));
    return torch::cat(each);
}

const float* as_floats(Tensor& t) {
    t = t.detach().to(torch::kFloat32).contiguous();
    return t.data_ptr<float>();
}

}  // namespace

const char* name(head_form form) {
    switch (form) {
        case head_form::trl:
            return "trl";
        case head_form::log_softmax_gather:
            return "log_softmax";
        case head_form::cross_entropy:
            return "cross_entropy";
        case head_form::closed:
            return "closed";
    }
    return "";
}

// ---- logits ---------------------------------------------------------------------------------------------------

struct head::state {
    head_form form;
    bench::head_inputs in;
    trl_terms terms;
    Tensor logits, targets, d_logp;
    Tensor logp, entropy, gradient;
    Tensor p, minus_slope, chosen;  // closed: buffers

    state(const bench::head_inputs& inputs, head_form f) : form(f), in(inputs), terms(terms_of(in)) {
        logits = view_of(in.logits, {in.tokens, in.vocabulary}, type_of(in.type));
        targets = view_of(in.targets, {in.tokens}, torch::kInt64);
        if (in.d_logp) d_logp = view_of(in.d_logp, {in.tokens}, torch::kFloat32);
        if (form != head_form::closed) return;
        p = torch::empty({in.tokens, in.vocabulary});
        minus_slope = torch::empty({in.tokens, 1});
        chosen = torch::empty({in.tokens, 1});
    }

    Tensor scaled() const { return in.temperature == 1.0 ? logits : logits / in.temperature; }

    void forward() {
        const torch::NoGradGuard no_grad;
        logp = logp_of(scaled(), targets, in.per_sequence, form);
    }

    void forward_with_entropy() {
        const torch::NoGradGuard no_grad;
        const Tensor z = scaled();
        if (form == head_form::log_softmax_gather) {
            const Tensor log_p = torch::log_softmax(z, -1);
            logp = gathered(log_p, targets);
            entropy = entropy_of(log_p);
        } else {
            logp = logp_of(z, targets, in.per_sequence, form);
            entropy = entropy_by_chunks(z);
        }
    }

    /// A leaf of autograd over the same memory.
    Tensor differentiable() {
        gradient = Tensor();
        logits.set_requires_grad(false);
        logits.mutable_grad() = Tensor();
        return logits.set_requires_grad(true);
    }

    void forward_backward() {
        if (form == head_form::closed) {
            const torch::NoGradGuard no_grad;
            closed_forward();
            closed_backward(d_logp);
            return;
        }
        differentiable();
        const Tensor of_tokens = logp_of(scaled(), targets, in.per_sequence, form);
        of_tokens.backward(d_logp.to(of_tokens.scalar_type()));
        finish(of_tokens);
    }

    double loss() {
        if (form == head_form::closed) return closed_loss();
        differentiable();
        const Tensor of_tokens = logp_of(scaled(), targets, in.per_sequence, form);
        const Tensor value = terms.mean(of_tokens.view({in.sequences(), in.per_sequence}));
        value.backward();
        finish(of_tokens);
        return value.item<double>();
    }

    void finish(const Tensor& of_tokens) {
        logp = of_tokens.detach();
        gradient = logits.grad();
        logits.mutable_grad() = Tensor();
        logits.set_requires_grad(false);
    }

    void closed_forward() {
        if (in.temperature == 1.0) {
            torch::softmax_out(p, logits, -1);
        } else {
            torch::mul_out(p, logits, torch::scalar_tensor(1.0 / in.temperature));
            torch::softmax_out(p, p, -1);
        }
        torch::gather_out(chosen, p, 1, targets.unsqueeze(1));
        logp = chosen.log().view({in.tokens});
    }

    void closed_backward(const Tensor& slope) {
        torch::mul_out(minus_slope, slope.view({in.tokens, 1}), torch::scalar_tensor(-1.0 / in.temperature));
        p.mul_(minus_slope);
        p.scatter_add_(1, targets.unsqueeze(1), minus_slope.neg_());
        gradient = p;
    }

    /// As for the loss of tokens alone: A r where the unclipped side is taken, less beta (e^d - 1).
    double closed_loss() {
        const torch::NoGradGuard no_grad;
        closed_forward();
        const Tensor x = logp.view({in.sequences(), in.per_sequence});
        const Tensor ratio = torch::exp(x - terms.logp_old);
        const Tensor plain = ratio * terms.advantage;
        const Tensor bounded = torch::clamp(ratio, 1 - in.low, 1 + in.high) * terms.advantage;
        const Tensor d = terms.logp_ref - x;
        const Tensor rise = torch::expm1(d);
        const Tensor count = terms.mask.sum().clamp(1.0);
        closed_backward((plain * (plain <= bounded) + in.beta * rise) * terms.mask / -count);
        return (((in.beta * (rise - d) - torch::min(plain, bounded)) * terms.mask).sum() / count).item<double>();
    }
};

head::head(const bench::head_inputs& in, head_form form) : s_(std::make_unique<state>(in, form)) {}
head::~head() = default;
void head::forward() {
    s_->forward();
}
void head::forward_with_entropy() {
    s_->forward_with_entropy();
}
void head::forward_backward() {
    s_->forward_backward();
}
double head::loss() {
    return s_->loss();
}
const float* head::logp() {
    return as_floats(s_->logp);
}
const float* head::entropy() {
    return as_floats(s_->entropy);
}
const void* head::gradient() const {
    return s_->gradient.data_ptr();
}
void head::release() {
    s_->logp = s_->entropy = s_->gradient = Tensor();
}

// ---- hidden states --------------------------------------------------------------------------------------------

struct linear_head::state {
    head_form form;
    bench::linear_inputs in;
    std::int64_t chunk;
    trl_terms terms;
    Tensor hidden, weight, targets;
    Tensor logp, d_hidden, d_weight;

    state(const bench::linear_inputs& inputs, head_form f, std::int64_t tokens_at_once)
        : form(f), in(inputs), chunk(tokens_at_once), terms(terms_of(in.head)) {
        const torch::ScalarType type = type_of(in.head.type);
        hidden = view_of(in.hidden, {in.head.tokens, in.width}, type);
        weight = view_of(in.weight, {in.head.vocabulary, in.width}, type);
        targets = view_of(in.head.targets, {in.head.tokens}, torch::kInt64);
        if (chunk == 0) chunk = in.head.tokens;
    }

    Tensor logp_of_rows(std::int64_t first, std::int64_t count) const {
        const Tensor logits = torch::matmul(hidden.narrow(0, first, count), weight.t());
        const Tensor scaled = in.head.temperature == 1.0 ? logits : logits / in.head.temperature;
        return logp_of(scaled, targets.narrow(0, first, count), in.head.per_sequence, form);
    }

    template <class F>
    void each_chunk(const F& f) const {
        for (std::int64_t first = 0; first < in.head.tokens; first += chunk)
            f(first, std::min(chunk, in.head.tokens - first));
    }

    void forward() {
        const torch::NoGradGuard no_grad;
        std::vector<Tensor> parts;
        each_chunk([&](std::int64_t first, std::int64_t count) { parts.push_back(logp_of_rows(first, count)); });
        logp = torch::cat(parts);
    }

    /// The terms of some tokens, flat, with every token's own advantage.
    trl_terms terms_of_rows(std::int64_t first, std::int64_t count) const {
        const auto part = [&](const Tensor& t) { return t.reshape({-1}).narrow(0, first, count); };
        return {part(terms.logp_old),
                part(terms.logp_ref),
                part(terms.advantage.expand_as(terms.mask)),
                part(terms.mask),
                terms.low,
                terms.high,
                terms.beta};
    }

    double loss() {
        for (Tensor* t : {&hidden, &weight}) {
            t->mutable_grad() = Tensor();
            t->set_requires_grad(true);
        }
        d_hidden = d_weight = Tensor();
        double total = 0;
        std::vector<Tensor> parts;
        const Tensor count_all = terms.mask.sum().clamp(1.0);
        each_chunk([&](std::int64_t first, std::int64_t count) {
            const Tensor of_tokens = logp_of_rows(first, count);
            const Tensor value = terms_of_rows(first, count).sum(of_tokens) / count_all;
            value.backward();
            total += value.item<double>();
            parts.push_back(of_tokens.detach());
        });
        logp = torch::cat(parts);
        d_hidden = hidden.grad();
        d_weight = weight.grad();
        for (Tensor* t : {&hidden, &weight}) {
            t->mutable_grad() = Tensor();
            t->set_requires_grad(false);
        }
        return total;
    }
};

linear_head::linear_head(const bench::linear_inputs& in, head_form form, std::int64_t chunk)
    : s_(std::make_unique<state>(in, form, chunk)) {}
linear_head::~linear_head() = default;
void linear_head::forward() {
    s_->forward();
}
double linear_head::loss() {
    return s_->loss();
}
const float* linear_head::logp() {
    return as_floats(s_->logp);
}
const void* linear_head::d_hidden() const {
    return s_->d_hidden.data_ptr();
}
const void* linear_head::d_weight() const {
    return s_->d_weight.data_ptr();
}
void linear_head::release() {
    s_->logp = s_->d_hidden = s_->d_weight = Tensor();
}

}  // namespace peer
