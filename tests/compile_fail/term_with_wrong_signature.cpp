// expect: a term's operator() is a template on the scalar S: it takes const token<S>& and returns S
#include <vector>

#include <grpo/grpo.hpp>

struct plain_number {
    static constexpr unsigned needs = grpo::input::logp::bit;
    float operator()(const grpo::token<float>& t) const { return -t.logp; }
};

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{plain_number{}, grpo::aggregation::token_mean()},
                         grpo::batch(grpo::padded(1, 2), grpo::logp(x)), 2.0, grpo::d_logp(g));
}
