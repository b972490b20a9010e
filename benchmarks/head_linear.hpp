// The head's cases that begin with hidden states: inputs, answers, and contestants checked against them.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <grpo/storage.hpp>

#include "head_cases.hpp"
#include "head_ours.hpp"
#include "head_report.hpp"
#include "peer_torch.hpp"
#include "peer_torch_head.hpp"

namespace bench {

/// Checked in double, from the inputs as stored: log-probability and d/dhidden of some tokens, d/dweight of some
/// entries of the vocabulary. All tokens in double would take hours: where the others' log-probabilities are needed,
/// they are LibTorch's in f32, whatever the case's type.
class linear_case {
public:
    head_tokens tokens;
    pages hidden, weight;

    explicit linear_case(const head_spec& spec)
        : tokens(spec),
          hidden(spec.tokens * spec.width * bytes_of(spec.type)),
          weight(spec.vocabulary * spec.width * bytes_of(spec.type)) {
        if (spec.type == storage::f32)
            fill<float>();
        else
            fill<grpo::bfloat16>();
        tokens.choose_others();
        checked_entries_ = {0, spec.vocabulary - 1, tokens.targets[0],
                            tokens.targets[static_cast<std::size_t>(spec.tokens / 2)]};
    }

    linear_inputs inputs() const { return {tokens.inputs(nullptr), tokens.spec.width, hidden.data(), weight.data()}; }

    double logp_error(const float* got) const {
        std::vector<float> some;
        std::vector<double> truth;
        for (const std::int64_t t : checked_tokens_) {
            some.push_back(got[t]);
            truth.push_back(tokens.logp[static_cast<std::size_t>(t)]);
        }
        return relative_error(some.data(), truth);
    }

    /// T: type of the inputs; G: of the gradients.
    template <class T, class G>
    double gradient_error(const G* d_hidden, const G* d_weight) const {
        double worst = 0;
        for (const std::int64_t t : checked_tokens_) worst = larger(worst, d_hidden_error<T>(d_hidden, t));
        for (const std::int64_t v : checked_entries_) worst = larger(worst, d_weight_error<T>(d_weight, v));
        return worst;
    }

private:
    static double larger(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

    template <class T>
    double z(std::int64_t token, std::int64_t entry) const {
        const std::int64_t width = tokens.spec.width;
        double sum = 0;
        for (std::int64_t k = 0; k < width; ++k)
            sum += value<T>(hidden, token * width + k) * value<T>(weight, entry * width + k);
        return sum / tokens.spec.temperature;
    }
    template <class T>
    static double value(const pages& p, std::int64_t i) {
        return static_cast<double>(p.as<T>()[i]);
    }

    /// dloss/dz of one token and entry.
    template <class T>
    double slope(std::int64_t token, std::int64_t entry) const {
        const auto i = static_cast<std::size_t>(token);
        const double onehot = tokens.targets[i] == entry ? 1.0 : 0.0;
        return tokens.slope[i] * (onehot - std::exp(z<T>(token, entry) - tokens.log_sum[i])) / tokens.spec.temperature;
    }

    template <class T, class G>
    double d_hidden_error(const G* got, std::int64_t token) const {
        const head_spec& s = tokens.spec;
        std::vector<double> truth(static_cast<std::size_t>(s.width));
        for (std::int64_t v = 0; v < s.vocabulary; ++v) {
            const double g = slope<T>(token, v);
            for (std::int64_t k = 0; k < s.width; ++k)
                truth[static_cast<std::size_t>(k)] += g * value<T>(weight, v * s.width + k);
        }
        return relative_error(got + token * s.width, truth);
    }

    template <class T, class G>
    double d_weight_error(const G* got, std::int64_t entry) const {
        const head_spec& s = tokens.spec;
        std::vector<double> truth(static_cast<std::size_t>(s.width));
        for (std::int64_t t = 0; t < s.tokens; ++t) {
            const double g = slope<T>(t, entry);
            for (std::int64_t k = 0; k < s.width; ++k)
                truth[static_cast<std::size_t>(k)] += g * value<T>(hidden, t * s.width + k);
        }
        return relative_error(got + entry * s.width, truth);
    }

    template <class T>
    void fill() {
        const head_spec& s = tokens.spec;
        fill_normal(hidden.as<T>(), s.tokens * s.width, 1.0f, 3);
        fill_normal(weight.as<T>(), s.vocabulary * s.width, 2.0f / std::sqrt(static_cast<float>(s.width)), 4);
        std::vector<float> h(static_cast<std::size_t>(s.tokens * s.width)),
            w(static_cast<std::size_t>(s.vocabulary * s.width));
        for (std::size_t i = 0; i < h.size(); ++i) h[i] = static_cast<float>(hidden.as<T>()[i]);
        for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(weight.as<T>()[i]);
        linear_inputs as_floats = inputs();
        as_floats.head.type = storage::f32;
        as_floats.hidden = h.data();
        as_floats.weight = w.data();
        peer::set_threads(2);
        peer::linear_head exact(as_floats, peer::head_form::cross_entropy, 256);
        exact.forward();
        const float* const logp = exact.logp();
        checked_tokens_ = {0, s.tokens / 2 + 1, s.tokens - 1};
        for (std::int64_t t = 0; t < s.tokens; ++t) {
            const auto i = static_cast<std::size_t>(t);
            tokens.logp[i] = static_cast<double>(logp[i]);
            tokens.log_sum[i] = z<T>(t, tokens.targets[i]) - tokens.logp[i];
        }
        for (const std::int64_t t : checked_tokens_) measure<T>(t);
        check(s.text().append(", LibTorch's f32 beside double"), logp_error(logp), 1e-5);
    }

    template <class T>
    void measure(std::int64_t token) {
        const auto i = static_cast<std::size_t>(token);
        double sum = 0;  // of e^z as it is: these logits are far below what overflows
        for (std::int64_t v = 0; v < tokens.spec.vocabulary; ++v) sum += std::exp(z<T>(token, v));
        tokens.log_sum[i] = std::log(sum);
        tokens.logp[i] = z<T>(token, tokens.targets[i]) - tokens.log_sum[i];
    }

    std::vector<std::int64_t> checked_tokens_, checked_entries_;
};

/// Name, what to run, and the check: shared by LibTorch's head and ours, whose gradients are of type G.
template <class T, class G, class Head>
contender linear_contender(const linear_case& c, const std::string& name, std::shared_ptr<Head> head, bool backward,
                           double limit, const std::string& what) {
    const auto loss = std::make_shared<double>(c.tokens.loss);
    const contestant runner{name, [head, loss, backward] {
                                if (backward)
                                    *loss = head->loss();
                                else
                                    head->forward();
                            }};
    const auto error = [&] {
        check(what + ", " + name + ", all tokens", relative_error(head->logp(), c.tokens.logp), limit);
        if (!backward) return c.logp_error(head->logp());
        return c.gradient_error<T>(static_cast<const G*>(head->d_hidden()), static_cast<const G*>(head->d_weight()));
    };
    contender made = checked(what, runner, error, limit);
    check(what + ", " + name + ", loss", std::abs(*loss - c.tokens.loss), limit);
    return made;
}

template <class T>
contender torch_linear(const linear_case& c, peer::head_form form, std::int64_t chunk, bool backward,
                       const std::string& what) {
    std::string name = peer::name(form);
    if (chunk > 0) name.append("/").append(std::to_string(chunk));
    const auto head = std::make_shared<peer::linear_head>(c.inputs(), form, chunk);
    contender made = linear_contender<T, T>(c, name, head, backward, sizeof(T) == 2 ? 0.1 : 1e-4, what);
    head->release();
    return made;
}

template <class T>
contender our_linear(const linear_case& c, int threads, bool backward, const std::string& what) {
    const auto head = std::make_shared<ours::linear_head<T>>(c.inputs(), threads);
    return linear_contender<T, float>(c, "grpo", head, backward, sizeof(T) == 2 ? 1e-2 : 1e-4, what);
}

}  // namespace bench
