// The tests of this folder run where there is a device, and say so where there is none.
//
// While a test case runs, what it allocates is memory that host and device share: the cases that the CPU's tests are made of
// run on a device as they are.
//
// Built by nvcc, or with GRPO_TEST_NVRTC by any compiler: kernels are then compiled at run time. All that the tests can launch
// are compiled beforehand for the oldest and the newest architecture, unoptimised, where no real device will run them.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <cuda_runtime.h>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#if defined(GRPO_TEST_NVRTC)
#include <string>
#include <vector>

#include <grpo/exec/nvrtc.hpp>

#include <cuda/on_device.cuh>
#endif

#include <cuda/sharing.hpp>

namespace {

struct alignas(64) origin {
    bool shared;
};

void* allocate(std::size_t bytes) {
    void* p = nullptr;
    const bool shared = on_device::sharing;
    if (shared && cudaMallocManaged(&p, bytes + sizeof(origin)) != cudaSuccess) p = nullptr;
    if (!shared) p = std::aligned_alloc(alignof(origin), (bytes / sizeof(origin) + 2) * sizeof(origin));
    if (p == nullptr) throw std::bad_alloc();
    return new (p) origin{shared} + 1;
}
void release(void* p) noexcept {
    if (p == nullptr) return;
    auto* const from = static_cast<origin*>(p) - 1;
    if (from->shared) cudaFree(from);
    else std::free(from);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }

#if defined(GRPO_TEST_NVRTC)
// All kernels of the program in one unit: they share the reading of the headers. Returns what the compiler says.
static std::string compile_at_once(int capability) {
    const std::string target = "-arch=compute_" + std::to_string(capability);
    const auto& library = grpo::detail::nvrtc_library::open();
    const auto kernels = grpo::detail::program_kernels::all().list();
    const auto headers = grpo::detail::kernel_headers("");
    std::vector<const char*> texts, names;
    for (const auto& [name, text] : headers) {
        names.push_back(name.c_str());
        texts.push_back(text.c_str());
    }
    std::string source = grpo::detail::kernel_includes;
    for (const auto& kernel : kernels) source += kernel.checks;
    nvrtcProgram program = nullptr;
    library.require("create", library.create(&program, source.c_str(), "all.cu", static_cast<int>(texts.size()), texts.data(),
                                             names.data()));
    for (const auto& kernel : kernels) library.require("name", library.add_name(program, kernel.name.c_str()));
    std::vector<const char*> flags{target.c_str(), "-G"};
    for (const char* const flag : grpo::detail::kernel_flags) flags.push_back(flag);
    const nvrtcResult done = library.compile(program, static_cast<int>(flags.size()), flags.data());
    std::size_t size = 0;
    library.require("log", library.log_size(program, &size));
    std::string log(size, '\0');
    library.require("log", library.log(program, log.data()));
    library.require("destroy", library.destroy(&program));
    std::printf("%zu kernels, %s: %s\n", kernels.size(), target.c_str(), library.error_string(done));
    const bool warns = log.find("warning #") != std::string::npos;
    return kernels.empty() || done != NVRTC_SUCCESS || warns ? "failed: " + log : "";
}

static std::vector<int> architectures() {
    const grpo::detail::shared_library file("NVRTC", "GRPO_NVRTC", {"libnvrtc.so"});
    decltype(&::nvrtcGetNumSupportedArchs) count = nullptr;
    decltype(&::nvrtcGetSupportedArchs) list = nullptr;
    file.find(count, "nvrtcGetNumSupportedArchs");
    file.find(list, "nvrtcGetSupportedArchs");
    int many = 0;
    grpo::detail::nvrtc_library::open().require("how many architectures", count(&many));
    std::vector<int> all(static_cast<std::size_t>(many));
    grpo::detail::nvrtc_library::open().require("architectures", list(all.data()));
    return all;
}
static bool compiles() {
    const std::vector<int> known = architectures();
    const bool newest_alone = std::getenv("GRPO_NEWEST_ALONE") != nullptr;  // of very many kernels
    for (const int capability : {75, known.back()}) {
        if (newest_alone && capability != known.back()) continue;
        const std::string log = compile_at_once(capability);
        if (log.empty()) continue;
        std::puts(log.substr(0, 4000).c_str());
        return false;
    }
    return true;
}
#endif

int main(int argc, char** argv) {
    int devices = 0;
    const bool device = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
#if defined(GRPO_TEST_NVRTC)
    const bool elsewhere = std::getenv("GRPO_COMPILED_ELSEWHERE") != nullptr;
    if ((!device || on_device::emulated()) && !elsewhere && !compiles()) return 1;
#endif
    if (device) return doctest::Context(argc, argv).run();
    std::puts("compiled; skipped: no device");
}
