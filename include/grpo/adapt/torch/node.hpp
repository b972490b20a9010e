// The autograd nodes: what the forward pass leaves behind, and what an upstream gradient makes of it.
//
// A second derivative is refused: the gradients that a backward pass with create_graph hands out belong to a node that
// raises when it is differentiated, never to none (which would be a silent 0).
#pragma once

#include <grpo/adapt/torch/tensors.hpp>

#include <torch/csrc/autograd/functions/basic_ops.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {
namespace detail {

// A loss and its slopes, as the core computed them: flat, of the compute type, already divided by the denominator.
struct evaluated {
    at::Tensor value;
    std::array<at::Tensor, 3> slope;
};

// torch::autograd::Function takes no undefined tensors: an empty one stands for an input that is not there.
inline at::Tensor or_empty(const at::Tensor& x) {
    return x.defined() ? x : at::empty({0});
}

// The edges to a node's inputs, kept for the node that refuses second derivatives.
struct input_edges : torch::CustomClassHolder {
    torch::autograd::edge_list edges;
};

inline void keep_edges(torch::autograd::AutogradContext* context, torch::autograd::edge_list edges) {
    auto kept = c10::make_intrusive<input_edges>();
    kept->edges = std::move(edges);
    context->saved_data["edges"] = c10::IValue::make_capsule(std::move(kept));
}

// The same gradients, but whoever differentiates them is told that this cannot be done.
inline void refuse_second_derivative(torch::autograd::AutogradContext* context,
                                     const torch::autograd::variable_list& upstream,
                                     torch::autograd::variable_list& gradients) {
    if (!at::GradMode::is_enabled()) return;
    const auto kept = context->saved_data["edges"].toCapsule();
    torch::autograd::edge_list edges = static_cast<const input_edges&>(*kept).edges;
    for (const at::Tensor& u : upstream) {
        if (u.defined() && u.requires_grad()) edges.push_back(torch::autograd::impl::gradient_edge(u));
    }
    const auto refusal = std::make_shared<torch::autograd::Error>(
        "grpo: a loss has first derivatives alone: its gradient cannot be differentiated again (create_graph)",
        std::move(edges));
    for (at::Tensor& gradient : gradients) {
        if (!gradient.defined()) continue;
        gradient = gradient.detach();
        torch::autograd::create_gradient_edge(gradient, refusal);
    }
}

// upstream · slope, with the shape and type of the input it belongs to.
struct loss_node : torch::autograd::Function<loss_node> {
    static at::Tensor forward(torch::autograd::AutogradContext* context, const evaluated* result, at::Tensor first,
                              at::Tensor second, at::Tensor third) {
        const at::Tensor inputs[] = {first, second, third};
        torch::autograd::variable_list slopes;
        for (int k = 0; k < 3; ++k) {
            const bool wanted = inputs[k].requires_grad();
            slopes.push_back(wanted ? result->slope[static_cast<std::size_t>(k)].view(inputs[k].sizes())
                                    : at::Tensor());
            context->saved_data["type" + std::to_string(k)] =
                static_cast<std::int64_t>(wanted ? inputs[k].scalar_type() : at::kFloat);
        }
        context->save_for_backward(std::move(slopes));
        keep_edges(context, torch::autograd::collect_next_edges(first, second, third));
        return result->value;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list upstream) {
        torch::autograd::variable_list gradients(4);
        if (!upstream[0].defined()) return gradients;
        const auto slopes = context->get_saved_variables();
        {
            at::AutoGradMode without(false);
            for (std::size_t k = 0; k < slopes.size(); ++k) {
                if (!slopes[k].defined()) continue;
                const auto type = static_cast<at::ScalarType>(context->saved_data["type" + std::to_string(k)].toInt());
                gradients[k + 1] = slopes[k].mul(upstream[0]).to(type);
            }
        }
        refuse_second_derivative(context, upstream, gradients);
        return gradients;
    }
};

}  // namespace detail
}  // namespace libtorch
}  // namespace grpo::inline v0
