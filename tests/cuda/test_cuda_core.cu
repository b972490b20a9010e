// Advantages, corrections, metrics and preferences on a device: the CPU's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <cuda/on_device.cuh>

namespace {

const on_device::session* device = nullptr;

template <class F>
void on_each_executor(F&& f) {
    const auto check = f(device->gpu());
    device->wait();
    check();
}

}  // namespace

#include <support/core_cases.hpp>

namespace {

// Every case has a device, and rows of some lanes; with GRPO_STRETCH set, of several steps of a block.
struct listener : doctest::IReporter {
    explicit listener(const doctest::ContextOptions&) {
        if (const char* x = std::getenv("GRPO_STRETCH")) stretch = std::atoi(x);
    }
    void test_case_start(const doctest::TestCaseData&) override { device = new on_device::session; }
    void test_case_end(const doctest::CurrentTestCaseStats&) override {
        delete device;
        device = nullptr;
    }
    void report_query(const doctest::QueryData&) override {}
    void test_run_start() override {}
    void test_run_end(const doctest::TestRunStats&) override {}
    void test_case_reenter(const doctest::TestCaseData&) override {}
    void test_case_exception(const doctest::TestCaseException&) override {}
    void subcase_start(const doctest::SubcaseSignature&) override {}
    void subcase_end() override {}
    void log_assert(const doctest::AssertData&) override {}
    void log_message(const doctest::MessageData&) override {}
    void test_case_skipped(const doctest::TestCaseData&) override {}
};
DOCTEST_REGISTER_LISTENER("device", 1, listener);

// Against the CPU in double: a scan of one scale goes over any number of lanes, and at γλ = 1 errors would add up. Arrays begin
// at entry `from`, which packs of four may not.
template <class T>
void check_gae(const std::vector<std::int64_t>& cu_seqlens, double gamma, double tolerance, std::size_t from = 0) {
    const auto cu = cu_seqlens;  // on the device
    const auto n = static_cast<std::size_t>(cu.back());
    const auto part = [&](auto& x) { return grpo::view(x.data() + from, cu.back()); };
    const auto shape = grpo::ragged(grpo::view<const std::int64_t>(cu), cu.back());
    random_batch::source random(11);
    std::vector<T> reward(from + n), value(from + n), advantage(from + n, T(7)), returns(from + n, T(7));
    std::vector<double> reward_there(n), value_there(n), advantage_there(n), returns_there(n);
    for (std::size_t i = 0; i < n; ++i) {
        reward_there[i] = reward[from + i] = static_cast<T>(random.uniform(-0.5, 0.5));
        value_there[i] = value[from + i] = static_cast<T>(random.uniform(-1, 1));
    }
    grpo::gae(device->gpu(), shape, grpo::gae_inputs<T>{.reward = part(reward), .value = part(value)}, {.gamma = gamma, .lambda = 1.0},
              part(advantage), part(returns));
    device->wait();
    grpo::gae(shape, grpo::gae_inputs<double>{.reward = reward_there, .value = value_there}, {.gamma = gamma, .lambda = 1.0},
              advantage_there, returns_there);
    INFO("gamma " << gamma << ", rows of " << n / (cu.size() - 1));
    const auto first = static_cast<std::ptrdiff_t>(from);
    CHECK(on_device::difference(std::vector<double>(advantage.begin() + first, advantage.end()), advantage_there, tolerance) == "");
    CHECK(on_device::difference(std::vector<double>(returns.begin() + first, returns.end()), returns_there, tolerance) == "");
    CHECK(std::count(advantage.begin(), advantage.begin() + first, T(7)) == first);
}
TEST_CASE("GAE over rows of a lane, some lanes, a warp and several") {
    for (const auto& rows : std::vector<std::vector<std::int64_t>>{
             {0, 1, 1, 4, 9, 10}, {0, 5, 40, 41, 77, 110, 200}, {0, 300, 1001, 1001, 1500}, {0, 3000, 9001, 17023}}) {
        for (const double gamma : {0.0, 0.5, 1.0}) {
            for (const std::size_t from : {0u, 3u}) check_gae<float>(rows, gamma, 2e-6, from);
            check_gae<double>(rows, gamma, 1e-13);
        }
        check_gae<double>(rows, 0.99, 1e-12);
    }
}

}  // namespace
