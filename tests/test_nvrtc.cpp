// Kernels compiled at run time, launched on a driver that only takes down what it is asked (tests/emulator/driver.cpp).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <grpo/exec/nvrtc.hpp>
#include <grpo/grpo.hpp>

#include <emulator/driver.hpp>
#include <support/sentence.hpp>

// A term that the program and the kernels have from one text.
#define TEXT_OF(...) #__VA_ARGS__
#define BOTH(...)                                              \
    __VA_ARGS__                                                \
    inline constexpr const char* own_text = TEXT_OF(__VA_ARGS__);

namespace own {

BOTH(
    struct capped_reinforce {
        static constexpr unsigned needs = grpo::input::logp::bit | grpo::input::advantage::bit;
        double cap = 2;

        template <class S>
        GRPO_HD S operator()(const grpo::token<S>& t) const {
            return S(-t.advantage * t.logp * S(static_cast<float>(cap)));
        }
    };
)

}  // namespace own

namespace {

namespace fs = std::filesystem;
using errors::contains;
using errors::sentence;

fake_cuda& fake() {
    static void* const file = ::dlopen(std::getenv("GRPO_CUDA_DRIVER"), RTLD_NOW);
    static auto* const state = reinterpret_cast<fake_cuda* (*)()>(::dlsym(file, "fake_cuda_state"));
    return *state();
}
struct folder {
    fs::path path = fs::temp_directory_path() / ("grpo_nvrtc_" + std::to_string(::getpid()));
    folder() { fs::remove_all(path); }
    ~folder() { fs::remove_all(path); }
    std::vector<fs::path> files() const {
        std::vector<fs::path> all;
        for (const auto& entry : fs::directory_iterator(path)) all.push_back(entry.path());
        return all;
    }
};

// Memory that the driver takes for a device's.
struct token_loss {
    std::vector<float> logp = std::vector<float>(64, -1.0f), gradient = std::vector<float>(64, 7.0f);
    std::vector<std::byte> memory = std::vector<std::byte>(static_cast<std::size_t>(grpo::nvrtc::workspace_bytes(4)));
    grpo::loss_result result{};

    auto batch() const {
        return grpo::batch(grpo::padded(4, 16), grpo::logp(logp), grpo::logp_old(logp), grpo::advantage(logp));
    }
    grpo::nvrtc gpu(grpo::nvrtc_kernels& kernels) { return grpo::nvrtc(nullptr, grpo::view(memory), kernels); }
    template <class Term>
    const grpo::loss_result* run(grpo::nvrtc_kernels& kernels, const Term& term) {
        return grpo::evaluate(gpu(kernels).into(&result), grpo::objective{term, grpo::aggregation::token_mean()}, batch(), 64.0,
                              grpo::d_logp(gradient));
    }
};

}  // namespace

TEST_CASE("without a driver or NVRTC, a sentence: nothing of either is linked") {
    const std::string driver = std::getenv("GRPO_CUDA_DRIVER"), nvrtc = std::getenv("GRPO_NVRTC");
    grpo::nvrtc_kernels kernels;
    ::setenv("GRPO_CUDA_DRIVER", "/nowhere/libcuda.so", 1);
    ::setenv("GRPO_NVRTC", "/nowhere/libnvrtc.so", 1);
    token_loss x;
    CHECK(contains(sentence([&] { (void)x.gpu(kernels); }), "grpo::nvrtc: the CUDA driver cannot be opened: /nowhere/libcuda.so"));
    CHECK(contains(sentence([&] { (void)kernels.compile_all(90); }), "grpo::nvrtc: NVRTC cannot be opened: /nowhere/libnvrtc.so"));
    ::setenv("GRPO_CUDA_DRIVER", "/proc/self/exe", 1);
    CHECK(contains(sentence([&] { (void)x.gpu(kernels); }), "grpo::nvrtc: the CUDA driver "));
    ::setenv("GRPO_CUDA_DRIVER", driver.c_str(), 1);
    ::setenv("GRPO_NVRTC", nvrtc.c_str(), 1);
}

TEST_CASE("a loss is one kernel, compiled and loaded once, told what the program knows") {
    fake() = {};
    grpo::nvrtc_kernels kernels;
    token_loss x;
    CHECK(x.run(kernels, grpo::clipped{.low = 0.3}) == &x.result);
    REQUIRE(fake().launches.size() == 1);
    CHECK(contains(fake().launches[0].kernel, "fold_kernel"));
    CHECK(contains(fake().launches[0].kernel, "clipped"));
    CHECK(fake().launches[0].threads == 256);
    CHECK(fake().launches[0].cluster == 1);
    CHECK(fake().cleared == 1);
    // Other values, another executor: the same kernel, and the values in its first parameter.
    fake().body_bytes = 128;
    x.run(kernels, grpo::clipped{.low = 0.7, .high = 0.9});
    CHECK(fake().loads == 1);
    REQUIRE(fake().launches.size() == 2);
    const auto& sent = fake().launches[1].body;
    const double bounds[] = {0.7, 0.9};
    const auto* const bytes = reinterpret_cast<const std::byte*>(bounds);
    CHECK(std::search(sent.begin(), sent.end(), bytes, bytes + sizeof bounds) != sent.end());
    fake().body_bytes = 0;
    // Another type: another kernel. Another architecture: the same once more.
    x.run(kernels, grpo::reinforce{});
    CHECK(fake().loads == 2);
    fake().capability = 80;
    x.run(kernels, grpo::reinforce{});
    CHECK(fake().loads == 3);
}

TEST_CASE("rows of logits: clusters and a ring where the device has them") {
    fake() = {};
    grpo::nvrtc_kernels kernels;
    const std::int64_t rows = 900, vocabulary = 128256;
    std::vector<grpo::bfloat16> logits(1), gradient(1);  // never touched
    std::vector<std::int32_t> target(static_cast<std::size_t>(rows), 0);
    std::vector<float> logp(static_cast<std::size_t>(rows));
    std::vector<std::byte> memory(static_cast<std::size_t>(grpo::nvrtc::workspace_bytes(rows)));
    const auto walk = [&] {
        const grpo::nvrtc gpu(nullptr, grpo::view(memory), kernels);
        const grpo::view<const grpo::bfloat16> z(logits.data(), rows * vocabulary);
        grpo::token_logp(gpu, grpo::logits(z, rows, vocabulary), target, {}, grpo::view(logp));
        grpo::d_logits(gpu, grpo::logits(z, rows, vocabulary), target, {}, grpo::view<const float>(logp),
                       grpo::view<const float>{}, grpo::view<grpo::bfloat16>(gradient.data(), rows * vocabulary));
        return std::vector<fake_cuda::launch>(std::move(fake().launches));
    };
    const auto hopper = walk();
    REQUIRE(hopper.size() == 2);
    CHECK(hopper[0].cluster == 1);  // read once
    CHECK(hopper[0].shared_bytes == 256 * grpo::detail::ring_bytes);
    CHECK(hopper[0].grid == 2 * 132);
    CHECK(hopper[1].cluster == 4);  // held for a second pass
    CHECK(hopper[1].shared_bytes == 256 * grpo::detail::ring_bytes);
    CHECK(hopper[1].grid == 60 * 4);
    fake() = {};
    fake().capability = 75;
    const auto turing = walk();
    REQUIRE(turing.size() == 2);
    for (const auto& launch : turing) {
        CHECK(launch.cluster == 1);
        CHECK(launch.shared_bytes == 0);
    }
    fake() = {};
    fake().device = fake().device_of_stream = 5;  // what a device can do is asked once
    fake().clusters = 0;
    CHECK(sentence([&] { (void)walk(); }) == "grpo::nvrtc: device 5 cannot run clusters of 4 blocks");
}

TEST_CASE("a term of the user's own, from the text that the program has too") {
    fake() = {};
    grpo::nvrtc_kernels kernels({.prelude = "namespace own {\n" + std::string(own::own_text) + "\n}"});
    token_loss x;
    x.run(kernels, own::capped_reinforce{});
    REQUIRE(fake().launches.size() == 1);
    CHECK(contains(fake().launches[0].kernel, "capped_reinforce"));
    // Laid out otherwise than in the program.
    std::string other = own::own_text;
    other.insert(other.find("double cap"), "double more[8] = {}; ");
    grpo::nvrtc_kernels wrong({.prelude = "namespace own {\n" + other + "\n}"});
    CHECK(contains(sentence([&] { x.run(wrong, own::capped_reinforce{}); }), "laid out otherwise than in the program"));
    CHECK(fake().launches.size() == 1);
    // Not there at all.
    grpo::nvrtc_kernels none;
    const std::string without = sentence([&] { x.run(none, own::capped_reinforce{}); });
    CHECK(contains(without, "grpo::nvrtc: the compiler says, for -arch=sm_90: error: "));
    CHECK(contains(none.log(), without.substr(without.find("error: "), 40)));
    CHECK(x.gradient == std::vector<float>(64, 7.0f));
    // All that this program can launch, without a driver's help.
    grpo::nvrtc_kernels all({.prelude = "namespace own {\n" + std::string(own::own_text) + "\n}", .flags = {"-G"}});
    CHECK(all.compile_all(80) == grpo::detail::program_kernels::all().list().size());
    CHECK(fake().loads == 1);
}

TEST_CASE("kernels in a folder: found again by the next program, and made again if they are not whole") {
    fake() = {};
    const folder at;
    const auto run = [&](token_loss& x) {
        grpo::nvrtc_kernels kernels({.cache = at.path.string()});
        x.run(kernels, grpo::clipped{});
    };
    token_loss x;
    run(x);
    REQUIRE(at.files().size() == 1);
    const fs::path file = at.files()[0];
    const auto content = [&] {
        std::ifstream in(file, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(in), {});
    };
    const std::string whole = content();
    const auto written = fs::last_write_time(file);
    run(x);  // found
    CHECK(fs::last_write_time(file) == written);
    CHECK(fake().loads == 2);
    fs::resize_file(file, whole.size() / 2);
    run(x);
    CHECK(content().size() == whole.size());
    std::string changed = content();
    changed[whole.size() - 9] ^= 1;
    std::ofstream(file, std::ios::binary) << changed;
    run(x);
    CHECK(content() != changed);
    // Other flags, other kernels.
    grpo::nvrtc_kernels kernels({.cache = at.path.string(), .flags = {"-lineinfo"}});
    x.run(kernels, grpo::clipped{});
    CHECK(at.files().size() == 2);
    // A folder that cannot be: no error.
    grpo::nvrtc_kernels nowhere({.cache = "/proc/no/such/folder"});
    x.run(nowhere, grpo::clipped{});
    CHECK(fake().launches.size() == 6);
}

TEST_CASE("mistakes are sentences, and nothing is launched") {
    fake() = {};
    grpo::nvrtc_kernels kernels;
    token_loss x;
    const auto says = [&] { return sentence([&] { x.run(kernels, grpo::clipped{}); }); };
    fake().capability = 70;
    CHECK(says() == "grpo::nvrtc: device has compute capability 7.0, but at least 7.5 is needed");
    fake() = {};
    const auto on_stream = [&] { grpo::nvrtc(reinterpret_cast<CUstream>(8), grpo::view(x.memory), kernels); };
    CHECK(sentence(on_stream) == "");
    fake().device_of_stream = 1;
    CHECK(sentence(on_stream) == "grpo::nvrtc: stream is one of device 1, but device 0 is in use");
    CHECK(fake().device == 0);
    fake() = {};
    fake().on_host = x.logp.data();
    CHECK(says() == "grpo::evaluate: logp points into host memory, but device 0 is to read or write it");
    fake().on_host = x.memory.data();
    CHECK(says() == "grpo::nvrtc: workspace points into host memory, but device 0 is to read or write it");
    fake() = {};
    fake().on_another = x.gradient.data();
    CHECK(says() == "grpo::evaluate: logp gradient points into device 3, but device 0 is in use");
    // Where nothing is thrown, this is returned like every other mistake.
    fake() = {};
    const grpo::nvrtc gpu = x.gpu(kernels).into(&x.result);
    fake().query_fails = CUDA_ERROR_INVALID_VALUE;
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const grpo::loss_result* there = nullptr;
    const grpo::problem p = grpo::try_accumulate(there, gpu, loss, x.batch(), 64.0, grpo::d_logp(x.gradient));
    CHECK(std::string(p.text) == "grpo::evaluate: logp failed: some error (1)");
    fake() = {};
    x.memory.resize(2048);
    CHECK(says() == "grpo::nvrtc: workspace has 2048 bytes, but 3072 are needed");
    x.memory.resize(100);
    CHECK(says() == "grpo::nvrtc: workspace has 100 bytes, but 1024 are needed");
    x.memory.resize(4096);
    grpo::nvrtc_kernels empty({.include = "/proc/self"});
    CHECK(sentence([&] { x.run(empty, grpo::clipped{}); }) ==
          "grpo::nvrtc: include is /proc/self, where no headers of grpo lie");
    CHECK(contains(sentence([&] { (void)kernels.compile_all(11); }), "grpo::nvrtc: the compiler says, for -arch=sm_11: "));
    CHECK(fake().launches.empty());
    fake().launch_fails = CUDA_ERROR_LAUNCH_FAILED;
    CHECK(says() == "grpo::nvrtc: the launch of a kernel failed: unspecified launch failure (719)");
}
