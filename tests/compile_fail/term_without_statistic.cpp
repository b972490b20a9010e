// expect: a term with statistics gives them by statistic(token) or write_statistics(token, out)
#include <vector>

#include <grpo/grpo.hpp>

struct forgot {
    static constexpr unsigned needs = grpo::input::logp::bit;
    static constexpr int statistics = 1;
    template <class S>
    S operator()(const grpo::token<S>& t) const { return t.sequence_mean(); }
};

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{forgot{}, grpo::aggregation::token_mean()},
                         grpo::batch(grpo::padded(1, 2), grpo::logp(x)), 2.0, grpo::d_logp(g));
}
