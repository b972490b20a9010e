// NVRTC, but for the machine code that it returns: that is PTX, which the driver of driver.cpp follows.
// GRPO_REAL_NVRTC names the file of the real one, GRPO_EMULATED_NVRTC the version that it says it is.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <dlfcn.h>
#include <nvrtc.h>

namespace {

template <class F>
F* real(const char* name) {
    static void* const file = ::dlopen(std::getenv("GRPO_REAL_NVRTC"), RTLD_NOW | RTLD_LOCAL);
    return file == nullptr ? nullptr : reinterpret_cast<F*>(::dlsym(file, name));
}

}  // namespace

#define PASS_ON(name, parameters, ...)                                  \
    nvrtcResult name parameters {                                       \
        static auto* const to = real<nvrtcResult parameters>(#name);    \
        return to == nullptr ? NVRTC_ERROR_INTERNAL_ERROR : to(__VA_ARGS__); \
    }

extern "C" {

const char* nvrtcGetErrorString(nvrtcResult code) {
    static auto* const to = real<const char*(nvrtcResult)>("nvrtcGetErrorString");
    return to == nullptr ? "GRPO_REAL_NVRTC names no NVRTC" : to(code);
}
nvrtcResult nvrtcVersion(int* major, int* minor) {
    if (const char* const asked = std::getenv("GRPO_EMULATED_NVRTC")) {
        return std::sscanf(asked, "%d.%d", major, minor) == 2 ? NVRTC_SUCCESS : NVRTC_ERROR_INVALID_INPUT;
    }
    static auto* const to = real<nvrtcResult(int*, int*)>("nvrtcVersion");
    return to == nullptr ? NVRTC_ERROR_INTERNAL_ERROR : to(major, minor);
}
PASS_ON(nvrtcCreateProgram,
        (nvrtcProgram* program, const char* source, const char* name, int count, const char* const* headers,
         const char* const* names),
        program, source, name, count, headers, names)
PASS_ON(nvrtcDestroyProgram, (nvrtcProgram* program), program)
PASS_ON(nvrtcAddNameExpression, (nvrtcProgram program, const char* name), program, name)
PASS_ON(nvrtcGetNumSupportedArchs, (int* count), count)
PASS_ON(nvrtcGetSupportedArchs, (int* architectures), architectures)
PASS_ON(nvrtcGetProgramLogSize, (nvrtcProgram program, std::size_t* size), program, size)
PASS_ON(nvrtcGetProgramLog, (nvrtcProgram program, char* log), program, log)
PASS_ON(nvrtcGetLoweredName, (nvrtcProgram program, const char* name, const char** lowered), program, name, lowered)
PASS_ON(nvrtcGetPTXSize, (nvrtcProgram program, std::size_t* size), program, size)
PASS_ON(nvrtcGetPTX, (nvrtcProgram program, char* text), program, text)

// Where the compiler can, with less of its most expensive optimisations: tests have many kernels.
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char* const* flags) {
    static auto* const to = real<nvrtcResult(nvrtcProgram, int, const char* const*)>("nvrtcCompileProgram");
    if (to == nullptr) return NVRTC_ERROR_INTERNAL_ERROR;
    std::vector<const char*> all(flags, flags + count);
    int major = 0, minor = 0;
    if (nvrtcVersion(&major, &minor) == NVRTC_SUCCESS && major >= 13) all.push_back("--Ofast-compile=min");
    return to(program, static_cast<int>(all.size()), all.data());
}
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, std::size_t* size) {
    return nvrtcGetPTXSize(program, size);
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* code) {
    return nvrtcGetPTX(program, code);
}

}  // extern "C"
