// The executor of a device itself: errors, streams, capture, where results go.
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/advantage.hpp>
#include <grpo/grpo.hpp>

#include <cuda/on_device.cuh>
#include <support/head_loss_cases.hpp>
#include <support/sentence.hpp>

namespace {

using errors::contains;
using errors::sentence;


struct token_loss {
    random_batch::arrays<float> a = random_batch::make<float>({3, 0, 700, 41}, 5);
    std::vector<float> gradient = std::vector<float>(a.tokens(), 7.0f);
    grpo::objective<grpo::clipped> loss{grpo::clipped{}, grpo::aggregation::token_mean()};

    const grpo::loss_result* run(const on_device::executor& gpu) {
        return grpo::evaluate(gpu, loss, a.batch(), 100.0, grpo::d_logp(gradient));
    }
};

TEST_CASE("a host pointer is named, and nothing is launched") {
    std::vector<float> on_host(744, 1.0f);  // before the session: memory of the host alone
    const on_device::session device;
    token_loss x;
    const std::string of_output = sentence([&] {
        (void)grpo::evaluate(device.gpu(), x.loss, x.a.batch(), 100.0, grpo::d_logp(on_host));
    });
    CHECK(contains(of_output, "evaluate: logp gradient points into host memory, but device 0 is to read or write it"));
    const std::string of_input = sentence([&] {
        const auto batch = grpo::batch(x.a.shape(), grpo::logp(grpo::view<const float>(on_host)), grpo::logp_old(x.a.logp_old),
                                       grpo::advantage(x.a.advantage));
        (void)grpo::evaluate(device.gpu(), x.loss, batch, 100.0, grpo::d_logp(x.gradient));
    });
    CHECK(contains(of_input, "evaluate: logp points into host memory"));
    device.wait();
    CHECK(x.gradient[0] == 7.0f);
    CHECK(contains(sentence([&] { on_device::executor(device.stream(), {reinterpret_cast<std::byte*>(on_host.data()), 2048}); }),
              ": workspace points into host memory"));
}

TEST_CASE("too small a workspace is refused with both numbers") {
    const on_device::session device(1);
    token_loss x;
    CHECK(contains(sentence([&] { x.run(device.gpu()); }), ": workspace has 1536 bytes, but 3072 are needed"));
    device.wait();
    CHECK(x.gradient[0] == 7.0f);
    CHECK(contains(sentence([&] { on_device::executor(device.stream(), {device.workspace().data(), 100}); }),
              ": workspace has 100 bytes, but 1024 are needed"));
}

TEST_CASE("results go where they are wanted, and onto what is there") {
    const on_device::session device;
    token_loss x;
    const grpo::loss_result once = random_batch::arrived(x.run(device.gpu()));
    std::vector<grpo::loss_result> kept(1);
    CHECK(x.run(device.gpu().into(kept.data())) == kept.data());
    device.wait();
    CHECK(kept[0].sum == once.sum);
    x.run(device.gpu().onto(kept.data()));
    device.wait();
    CHECK(kept[0].sum == doctest::Approx(2 * once.sum).epsilon(1e-14));
    CHECK(kept[0].count.tokens == 2 * once.count.tokens);
}

TEST_CASE("what a function folds on its way does not go where results are wanted") {
    const on_device::session device;
    token_loss x;
    std::vector<double> kept(64, 7.0);
    grpo::whiten(device.gpu().into(kept.data()), x.a.shape(), x.a.logp, x.gradient);
    device.wait();
    CHECK(kept == std::vector<double>(64, 7.0));
    CHECK(x.gradient[1] != 7.0f);
}

TEST_CASE("streams of their own run side by side with the same bits") {
    const on_device::session a, b;
    token_loss x, y;
    const auto* of_x = x.run(a.gpu());
    const auto* of_y = y.run(b.gpu());
    a.wait(), b.wait();
    CHECK(of_x->sum == of_y->sum);
    CHECK(random_batch::same_bits(x.gradient, y.gradient));
}

TEST_CASE("a captured graph does the same again") {
    const on_device::session device;
    auto w = head_loss_cases::world<double>({5, 9}, 5003).as<grpo::bfloat16, float>();
    const auto batch = w.batch();
    token_loss x;
    x.run(device.gpu());
    device.wait();
    const std::vector<float> expected = x.gradient;
    const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
    std::vector<grpo::bfloat16> gradient(w.z.size(), grpo::bfloat16(9.0f)), direct = gradient;
    std::vector<std::byte> memory(static_cast<std::size_t>(grpo::evaluate_logits_workspace(0, w.rows(), w.vocabulary)));
    std::vector<grpo::loss_result> results(2);
    const auto all = [&](const on_device::executor& gpu, std::vector<grpo::bfloat16>& to, grpo::loss_result* result) {
        x.run(gpu);
        (void)grpo::evaluate_logits(gpu.into(result), loss, w.logits(), w.target, w.options, batch, 14.0, grpo::view(to),
                                    grpo::view(memory));
    };
    const on_device::executor gpu = device.gpu();
    all(gpu, direct, results.data());
    device.wait();
    x.gradient.assign(x.gradient.size(), 7.0f);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t launchable = nullptr;
    REQUIRE(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    all(gpu, gradient, results.data() + 1);
    REQUIRE(cudaStreamEndCapture(device.stream(), &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&launchable, graph, 0) == cudaSuccess);
    for (int time = 0; time < 3; ++time) {
        REQUIRE(cudaGraphLaunch(launchable, device.stream()) == cudaSuccess);
        device.wait();
        CHECK(random_batch::same_bits(x.gradient, expected));
        CHECK(std::memcmp(gradient.data(), direct.data(), direct.size() * sizeof(direct[0])) == 0);
        CHECK(results[1].sum == results[0].sum);
    }
    cudaGraphExecDestroy(launchable);
    cudaGraphDestroy(graph);
}

}  // namespace
