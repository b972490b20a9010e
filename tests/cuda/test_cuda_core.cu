// Advantages, corrections, metrics and preferences on a device: the CPU's.
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

}  // namespace
