// The engine's bodies as a kernel would run them: one thread walks one row with the serial team. Compiled, not run, by the
// tests: no host-only call may be reachable from a body, and no flag beyond -std=c++20 may be needed.
#include <grpo/grpo.hpp>

template <class Body>
__global__ void fold_rows(Body body, typename Body::result* results, std::int64_t rows) {
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    grpo::serial_team team;
    if (row < rows) results[row] = body(team, row);
}

template <class Body>
__global__ void walk_rows(Body body, std::int64_t rows) {
    const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    grpo::serial_team team;
    if (row < rows) body(team, row);
}

template <class Term>
void loss(const Term& term) {
    float x[4] = {};
    unsigned char mask[4] = {1, 1, 0, 1};
    const auto shape = grpo::padded(2, 2).where(grpo::view(mask));
    const auto batch = grpo::batch(shape, grpo::logp(grpo::view(x)), grpo::logp_old(grpo::view(x)),
                                   grpo::logp_ref(grpo::view(x)), grpo::logp_rollout(grpo::view(x)),
                                   grpo::entropy(grpo::view(x)), grpo::advantage(grpo::view(x)));
    const auto outputs = grpo::detail::output_set(grpo::d_logp(x), grpo::d_entropy(x));
    using body = grpo::detail::loss_rows<Term, std::remove_cvref_t<decltype(batch)>, std::remove_cvref_t<decltype(outputs)>, true>;
    fold_rows<<<1, 32>>>(body{term, batch, outputs, grpo::aggregation::sequence_mean(), 1.0, grpo::nonfinite::report},
                         static_cast<typename body::result*>(nullptr), 2);
}

void everything() {
    loss(grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{});
    loss(grpo::gspo{});
    loss(grpo::gmpo{});
    loss(grpo::vespo{});
    loss(grpo::decoupled_clip{} + 0.1 * grpo::kl_penalty<grpo::kl_estimator::k3, grpo::kl_gradient::importance>{});
    using shape = grpo::padded;
    walk_rows<<<1, 32>>>(grpo::detail::gae_rows<shape, float, std::uint8_t, float, float>{
                             shape(2, 2), {}, {}, 0.0, grpo::detail::gae_output::both, nullptr, nullptr},
                         2);
    walk_rows<<<1, 32>>>(grpo::detail::logp_rows<grpo::bfloat16, std::int32_t, float>{{}, nullptr, 1.0, nullptr, nullptr}, 0);
    walk_rows<<<1, 32>>>(
        grpo::detail::d_logits_rows<float, std::int32_t, float, grpo::float16>{{}, nullptr, 1.0, nullptr, nullptr, nullptr}, 0);
}
