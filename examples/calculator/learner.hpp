// A model and its optimiser: gradients of pieces, computed side by side and added up in their order.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "model.hpp"
#include "workers.hpp"

#include <torch/csrc/autograd/autograd.h>
#include <torch/optim/adamw.h>

namespace calculator {

class learner {
public:
    explicit learner(const model_options& o)
        : model(std::make_shared<transformer>(o)),
          optimizer(model->parameters(),
                    torch::optim::AdamWOptions(1e-3).betas({0.9, 0.99}).eps(1e-8).weight_decay(0)) {}

    // One update with the gradient of Σ_k loss(k), cut to a norm of at most `longest`. The norm before the cut; where
    // it is not finite nothing is changed.
    template <class Loss>
    double update(workers& crew, std::size_t pieces, const Loss& loss, double rate, double longest) {
        const auto weights = model->parameters();
        std::vector<torch::autograd::variable_list> of_piece(pieces);
        crew.each(pieces, [&](std::size_t k) {
            of_piece[k] = torch::autograd::grad({loss(k)}, weights, {}, false, false, true);
        });
        const torch::NoGradGuard off;
        double squares = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            at::Tensor sum;
            for (auto& gradients : of_piece) {
                if (!gradients[i].defined()) continue;
                sum = sum.defined() ? sum.add_(gradients[i]) : gradients[i].clone();
            }
            weights[i].mutable_grad() = sum;
            if (sum.defined()) squares += sum.square().sum().item<double>();
        }
        const double norm = std::sqrt(squares);
        if (!std::isfinite(norm)) return norm;
        if (norm > longest)
            for (const at::Tensor& w : weights)
                if (w.grad().defined()) w.mutable_grad().mul_(longest / norm);
        static_cast<torch::optim::AdamWOptions&>(optimizer.param_groups()[0].options()).lr(rate);
        optimizer.step();
        return norm;
    }

    // The optimiser's running means start anew.
    void forget() { optimizer.state().clear(); }

    std::shared_ptr<transformer> model;
    torch::optim::AdamW optimizer;
};

// From 0 to `rate` over `warm_up` steps, then on half a cosine to the share `end` of it.
inline double scheduled(double rate, std::int64_t step, std::int64_t steps, std::int64_t warm_up, double end) {
    if (step < warm_up) return rate * static_cast<double>(step + 1) / static_cast<double>(warm_up);
    const double done =
        static_cast<double>(step - warm_up) / static_cast<double>(std::max<std::int64_t>(1, steps - warm_up));
    return rate * (end + (1 - end) * 0.5 * (1 + std::cos(3.14159265358979323846 * std::min(1.0, done))));
}

}  // namespace calculator
