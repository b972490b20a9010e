// A loss from logits: every term against central differences through the whole head, and against the three calls it fuses.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/all_terms.hpp>
#include <support/head_loss_cases.hpp>
#include <support/vectors.hpp>

namespace {

using head_loss_cases::world;
const grpo::serial exec;
const std::vector<int> lengths{5, 4};

world<double> small() {
    world<double> w(lengths, 5);
    w.a.mask = {1, 1, 0, 1, 1, 1, 0, 0, 1};
    return w;
}

// log π of the targets, the entropy and the full KL of every row, in long double.
struct row_values {
    long double logp = 0, entropy = 0, kl = 0;
};
row_values values_of(const world<double>& w, std::int64_t i) {
    const auto log_softmax = [&](const std::vector<double>& z) {
        std::vector<long double> x;
        long double sum = 0;
        for (std::int64_t c = 0; c < w.vocabulary; ++c) {
            x.push_back(static_cast<long double>(z[w.place(i, c)]) / static_cast<long double>(w.options.temperature));
            sum += std::exp(x.back());
        }
        for (long double& y : x) y -= std::log(sum);
        return x;
    };
    const auto l = log_softmax(w.z), r = log_softmax(w.ref);
    row_values v;
    v.logp = l[static_cast<std::size_t>(w.target[static_cast<std::size_t>(i)])];
    for (std::size_t c = 0; c < l.size(); ++c) {
        v.entropy -= std::exp(l[c]) * l[c];
        v.kl += std::exp(l[c]) * (l[c] - r[c]);
    }
    return v;
}

// f(w) differentiated by every logit.
template <class F>
std::vector<double> differences(const world<double>& w, double step, F&& f) {
    std::vector<double> g(w.z.size());
    world<double> at = w;
    for (std::size_t k = 0; k < g.size(); ++k) {
        at.z[k] = w.z[k] + step;
        const auto up = f(at, k);
        at.z[k] = w.z[k] - step;
        const auto down = f(at, k);
        at.z[k] = w.z[k];
        g[k] = static_cast<double>((up - down) / (2 * step));
    }
    return g;
}

// The batch with what the logits give, and the slopes that evaluate() has for them.
struct composed {
    std::vector<double> logp, entropy, full_kl, d_logp, d_entropy, d_full_kl;
    grpo::loss_result result;

    auto with_values(const world<double>& w) const {
        const auto& a = w.a;
        return grpo::batch(a.shape(), grpo::logp(logp), grpo::entropy(entropy), grpo::full_kl(full_kl), grpo::values(a.value),
                           grpo::logp_old(a.logp_old), grpo::logp_ref(a.logp_ref), grpo::logp_rollout(a.logp_rollout),
                           grpo::advantage(a.advantage), grpo::weight(a.weight), grpo::keep(a.keep), grpo::label(a.label),
                           grpo::values_old(a.value_old), grpo::returns(a.returns));
    }

    template <class Loss>
    composed(const Loss& loss, const world<double>& w) {
        const std::size_t n = w.a.tokens();
        for (auto* x : {&logp, &entropy, &full_kl, &d_logp, &d_entropy, &d_full_kl}) x->assign(n, 0.0);
        grpo::token_logp(exec, w.logits(), w.target, w.options, grpo::view(logp), grpo::view(entropy));
        grpo::full_kl(exec, w.logits(), w.reference(), w.options, grpo::view(full_kl));
        const auto whole = with_values(w);
        const double denominator = loss.over.denominator(grpo::count(whole.layout));
        result = grpo::evaluate(exec, loss, whole, denominator, grpo::d_logp(d_logp), grpo::d_entropy(d_entropy),
                                grpo::d_full_kl(d_full_kl));
    }
    std::vector<double> gradient(const world<double>& w) const {
        std::vector<double> g(w.z.size()), of_kl(w.z.size());
        grpo::d_logits(exec, w.logits(), w.target, w.options, grpo::view<const double>(d_logp),
                       grpo::view<const double>(d_entropy), grpo::view(g));
        grpo::full_kl(exec, w.logits(), w.reference(), w.options, grpo::view<double>{}, grpo::view<const double>(d_full_kl),
                      grpo::view(of_kl));
        for (std::size_t i = 0; i < g.size(); ++i) g[i] += of_kl[i];
        return g;
    }
};

// Parts of these are constants of the derivative, though the logits move them.
const std::set<std::string> stops{"clipped, straight through", "on_policy", "cispo", "cispo_upper",
                                  "dppo_tv", "dppo_kl",
                                  "vespo", "kl k3, k2", "kl k1, score", "dft"};

template <class Term>
void check(const std::string& name, const Term& term) {
    CAPTURE(name);
    const world<double> w = small();
    for (const grpo::aggregation& over : {grpo::aggregation::sequence_mean(), grpo::aggregation::token_mean()}) {
        const grpo::objective loss{term, over};
        const auto o = head_loss_cases::evaluate<double>(exec, loss, w);
        const composed c(loss, w);
        CHECK(vectors::close(o.result.sum, c.result.sum, 1e-14));
        CHECK(o.result.weight == c.result.weight);
        CHECK(o.result.count.tokens == c.result.count.tokens);
        CHECK(vectors::difference(o.gradient, c.gradient(w), 1e-14) == "");
        // Constants of the derivative frozen: what is left of the loss is linear in the log-probability, H and the KL.
        const auto frozen = differences(w, 1e-5, [&](const world<double>& at, std::size_t k) {
            const auto i = k / static_cast<std::size_t>(w.vocabulary);
            const row_values v = values_of(at, static_cast<std::int64_t>(i));
            return static_cast<long double>(c.d_logp[i]) * v.logp + static_cast<long double>(c.d_entropy[i]) * v.entropy +
                   static_cast<long double>(c.d_full_kl[i]) * v.kl;
        });
        CHECK(vectors::difference(o.gradient, frozen, 1e-9) == "");
        const auto whole = differences(w, 1e-5, [&](const world<double>& at, std::size_t) {
            return head_loss_cases::evaluate<double>(exec, loss, at, false).loss();
        });
        if (stops.count(name) == 0) CHECK(vectors::difference(o.gradient, whole, 1e-8) == "");
    }
}

const auto each = [](const char* name, const auto& term) { check(name, term); };

TEST_CASE("R1.40 policy terms from logits: central differences through the head") { all_terms::policy(each); }
TEST_CASE("R1.40 R1.35 sequence terms from logits: central differences through the head") { all_terms::sequence(each); }
TEST_CASE("R1.40 KL terms from logits: central differences through the head") { all_terms::kl(each); }
TEST_CASE("R1.40 all other terms from logits: central differences through the head") {
    all_terms::others(each);
    all_terms::composed(each);
}
TEST_CASE("K05 the exact KL as a term: central differences through the head") {
    check("exact_kl", 0.5 * grpo::exact_kl{});
    check("clipped + exact_kl - entropy", grpo::clipped{} + 0.04 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
    check("gspo + exact_kl", grpo::gspo{.low = 0.1, .high = 0.1} + 0.3 * grpo::exact_kl{});
}

TEST_CASE("losses from logits are evaluate()'s of the same log-probabilities, metrics included, to the bit") {
    const world<double> w = small();
    const auto loss = grpo::objective{grpo::clipped{} + 0.1 * grpo::kl{} + 0.01 * grpo::entropy_bonus{},
                                      grpo::aggregation::sequence_mean()}.diagnosed();
    const auto o = head_loss_cases::evaluate<double>(exec, loss, w);
    composed c(loss, w);
    CHECK(o.result.metrics.ratio > 0);
    for (std::size_t i = 0; i < w.a.tokens(); ++i) {
        const row_values v = values_of(w, static_cast<std::int64_t>(i));
        const bool counts = w.a.mask[i] != 0;
        CHECK(vectors::close(o.logp[i], counts ? static_cast<double>(v.logp) : 0.0, 1e-14));
        CHECK(vectors::close(o.entropy[i], counts ? static_cast<double>(v.entropy) : 0.0, 1e-14));
        if (!counts) CHECK((random_batch::same_bits(o.logp[i], 0.0) && random_batch::same_bits(o.entropy[i], 0.0)));
    }
    c.logp = o.logp;
    c.entropy = o.entropy;
    const auto again = grpo::evaluate(exec, loss, c.with_values(w), o.denominator);
    CHECK(random_batch::same_bits(again.sum, o.result.sum));
    CHECK(std::memcmp(&again.metrics, &o.result.metrics, sizeof again.metrics) == 0);
}

TEST_CASE("the value alone is the loss with a gradient, and writes no gradient") {
    const world<double> w = small();
    const auto test = [&](const auto& term) {
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        const auto whole = head_loss_cases::evaluate<double>(exec, loss, w);
        const auto alone = head_loss_cases::evaluate<double>(exec, loss, w, false);
        CHECK(random_batch::same_bits(alone.result.sum, whole.result.sum));
        CHECK(alone.logp == whole.logp);
        CHECK(alone.entropy == whole.entropy);
        CHECK(alone.full_kl == whole.full_kl);
        for (const double g : alone.gradient) CHECK(g == 77.0);
    };
    test(grpo::clipped{} + 0.04 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
    test(grpo::gspo{.low = 0.1, .high = 0.1} + 0.3 * grpo::exact_kl{});
}

TEST_CASE("R1.12 columns that pad are not read; the gradient there is +0.0") {
    const world<double> w = head_loss_cases::padded(world<double>(lengths, 9, 11), 6);
    const auto test = [&](const auto& term) {
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        CHECK(std::string(head_loss_cases::padding_leaks<double>(exec, loss, w, 0.0)) == "");
    };
    test(grpo::clipped{});
    test(grpo::gspo{.low = 0.1, .high = 0.1} + 0.3 * grpo::exact_kl{});
}

TEST_CASE("logits of float with inputs of float: double's gradient within 2e-6") {
    const auto single = world<double>({7, 0, 12, 3}, 37, 40).as<float, float>();
    const auto exact = single.as<double, double>();
    const auto test = [&](const auto& term) {
        const grpo::objective loss{term, grpo::aggregation::token_sum()};
        const auto e = head_loss_cases::evaluate<double>(exec, loss, exact);
        const auto o = head_loss_cases::evaluate<float>(exec, loss, single);
        CHECK(vectors::close(o.loss(), e.loss(), 1e-5));
        CHECK(vectors::difference(o.gradient, e.gradient, 4e-6) == "");
    };
    test(grpo::clipped{} + 0.04 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
    test(grpo::gspo{.low = 0.1, .high = 0.1} + 0.3 * grpo::exact_kl{});
    test(grpo::clipped{});
}

}  // namespace
