// The losses of all recipes: the one place that is compiled once for each of them.
#include "method.hpp"
#include "run.hpp"

#include <fmt/format.h>

namespace calculator {

namespace {

// Σ coefficient · tokens over a piece's responses: what sums of metrics are divided by.
double metric_weight(const grpo::aggregation& over, const at::Tensor& offsets) {
    double weight = 0;
    const std::int64_t* const at = offsets.data_ptr<std::int64_t>();
    for (std::int64_t row = 0; row + 1 < offsets.size(0); ++row) {
        const std::int64_t n = at[row + 1] - at[row];
        weight += over.coefficient(row, n) * static_cast<double>(n);
    }
    return weight;
}

void note(const grpo::libtorch::loss& l, const grpo::aggregation& over, const packed& p, bool with_reference,
          measured& m) {
    const grpo::diagnostics& d = l.sums.metrics;
    const double weight = metric_weight(over, p.offsets);
    m.weight += weight;
    m.clipped += d.clipped_low + d.clipped_high;
    m.entropy += d.entropy;
    m.moved += d.approx_kl;
    if (!with_reference) return;
    m.ref_weight += weight;
    m.kl += d.kl_ref_k1;
}

template <class Term>
class token_method final : public method {
public:
    token_method(const grpo::recipe::method<Term>& r, const method_options& o) : method(r, o), recipe_(r) {
        if (o.kl < 0) return;
        if constexpr (requires { recipe_.objective.term.b.scale; }) {
            recipe_.objective.term.b.scale = o.kl;
        } else if (card_.advantage.kl.beta != 0) {
            card_.advantage.kl.beta = o.kl;
        } else {
            added_kl_ = o.kl;
        }
    }

    at::Tensor loss(const outlook& o, const experience& e, const packed& p, measured& m) const override {
        auto x = tensors(o, e, p);
        constexpr bool differentiable = (Term::needs & grpo::input::entropy::bit) != 0;
        x.entropy = differentiable ? o.entropy : o.entropy.detach();
        const auto& over = recipe_.objective.over;
        const auto l = grpo::libtorch::evaluate(recipe_.objective.diagnosed(), x, over.denominator(e.count));
        m.loss += l.value.template item<double>();
        note(l, over, p, x.logp_ref.defined(), m);
        return l.value + added(o, e, p, over, m);
    }

protected:
    bool loss_reads_reference() const override { return recipe_.reads_reference(); }

private:
    grpo::recipe::method<Term> recipe_;
};

template <class Term>
class pair_method final : public method {
public:
    pair_method(const grpo::recipe::method<Term>& r, const method_options& o) : method(r, o), recipe_(r) {
        if (o.kl >= 0) recipe_.objective.term.beta = o.kl;
    }

    bool of_pairs() const override { return true; }

    at::Tensor loss(const outlook& o, const experience& e, const packed& p, measured& m) const override {
        std::vector<std::int64_t> right;
        std::vector<std::int64_t> wrong;
        for (const auto& [a, b] : e.pairs) {
            if (a < p.first_row || a >= p.first_row + p.rows()) continue;
            right.push_back(a - p.first_row);
            wrong.push_back(b - p.first_row);
        }
        const at::Tensor chosen = torch::tensor(right, torch::kLong);
        const at::Tensor rejected = torch::tensor(wrong, torch::kLong);
        const at::Tensor of_policy = of_responses(o.logp, p);
        const at::Tensor of_reference = of_responses(p.of(e.logp_ref), p);
        const grpo::libtorch::pair_tensors x{.chosen = of_policy.index_select(0, chosen),
                                             .rejected = of_policy.index_select(0, rejected),
                                             .ref_chosen = of_reference.index_select(0, chosen),
                                             .ref_rejected = of_reference.index_select(0, rejected)};
        note_tokens(o, e, p, m);
        if (right.empty()) return of_policy.sum() * 0;
        const auto l = grpo::libtorch::evaluate(recipe_.objective, x, static_cast<double>(e.pairs.size()));
        m.loss += l.value.template item<double>();
        return l.value;
    }

protected:
    bool loss_reads_reference() const override { return true; }

private:
    static at::Tensor of_responses(const at::Tensor& logp, const packed& p) {
        const at::Tensor lengths = p.offsets.diff();
        const at::Tensor row = torch::arange(p.rows()).repeat_interleave(lengths);
        return torch::zeros({p.rows()}).index_add(0, row, logp);
    }

    // Metrics of tokens, from a loss of tokens that is not used.
    void note_tokens(const outlook& o, const experience& e, const packed& p, measured& m) const {
        const grpo::objective<grpo::nll, true> likelihood{{}, grpo::aggregation::token_mean()};
        auto x = tensors(o, e, p);
        x.logp = o.logp.detach();
        x.entropy = o.entropy.detach();
        note(grpo::libtorch::evaluate(likelihood, x), likelihood.over, p, x.logp_ref.defined(), m);
    }

    grpo::recipe::method<Term> recipe_;
};

void require_steps_make_sense(const grpo::recipe::card& what, const method_options& o) {
    if (o.by == supervision::outcome) return;
    const auto& rule = what.advantage;
    const auto& g = rule.group;
    const bool normalised = rule.kind == grpo::recipe::estimator::group && g.scale == grpo::group_scale::group &&
                            g.baseline == grpo::group_baseline::mean && rule.kl.beta == 0;
    if (!normalised) {
        throw usage_error(fmt::format(
            "--supervision process: step rewards are normalised within their group, which the recipe {} does not do; "
            "recipes like grpo, dapo and gspo do",
            what.name));
    }
}

}  // namespace

std::unique_ptr<method> make_method(const method_options& o) {
    std::unique_ptr<method> made;
    try {
        grpo::recipe::find(o.name.c_str());
    } catch (const grpo::error& e) {
        throw usage_error(fmt::format("--recipe: {}", e.what()));
    }
    grpo::recipe::visit(o.name.c_str(), [&]<class Term>(const grpo::recipe::method<Term>& r) {
        require_steps_make_sense(r, o);
        if constexpr ((Term::needs & grpo::input::chosen::bit) != 0) {
            made = std::make_unique<pair_method<Term>>(r, o);
        } else {
            made = std::make_unique<token_method<Term>>(r, o);
        }
    });
    return made;
}

}  // namespace calculator
