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

template <class T, class Reading, class Out>
void head_of(const Reading& reading) {
    namespace detail = grpo::detail;
    using detail::softmax_wants;
    const grpo::logits_view<T> z;
    const std::int32_t* targets = nullptr;
    using by_mask = detail::head_input<T, T, Reading, std::int32_t, detail::used_by_mask>;
    const by_mask from{z, z, reading, 0, 0, targets, {nullptr}};
    walk_rows<<<1, 32>>>(detail::logp_rows<softmax_wants::entropy | softmax_wants::divergence, by_mask, float>{from, {}}, 0);
    walk_rows<<<1, 32>>>(detail::d_logits_rows<true, true, by_mask, float, Out>{from, nullptr, nullptr, nullptr, {}, nullptr}, 0);
    walk_rows<<<1, 32>>>(detail::full_kl_rows<by_mask, float, Out>{from, nullptr, nullptr, nullptr}, 0);

    using shape = grpo::padded;
    const auto batch = grpo::batch(shape(1, 1), grpo::logp(grpo::view<const float>()), grpo::entropy(grpo::view<const float>()),
                                   grpo::full_kl(grpo::view<const float>()), grpo::logp_old(grpo::view<const float>()),
                                   grpo::advantage(grpo::view<const float>()));
    const auto term = grpo::clipped{} + 0.01 * grpo::entropy_bonus{} + 0.04 * grpo::exact_kl{};
    const grpo::view<float> slope;
    const auto rows = detail::rows_of<false>(term, grpo::aggregation::token_mean(), grpo::nonfinite::report, batch, 1.0,
                                             grpo::d_logp(slope), grpo::d_entropy(slope), grpo::d_full_kl(slope));
    using by_shape = detail::head_input<T, T, Reading, std::int32_t, detail::used_by_shape<shape>>;
    using body = detail::fused_tokens<true, true, by_shape, detail::slopes_in_lane<std::remove_const_t<decltype(rows)>>, float, Out>;
    walk_rows<<<1, 32>>>(body{{z, z, reading, 0, 0, targets, {shape(1, 1)}}, {rows}, {}, nullptr, nullptr, 0}, 0);
}

void head() {
    head_of<grpo::bfloat16, grpo::detail::plain_reading, grpo::bfloat16>({});
    head_of<float, grpo::detail::shaped_reading, float>({});
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
    head();
}
