// Kernels compiled where the program runs: each once for an architecture, kept in memory and, if asked, in a folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include <cxxabi.h>
#include <unistd.h>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/executor.hpp>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/nvrtc/library.hpp>
#include <grpo/exec/nvrtc/sources.hpp>

namespace grpo::inline v0 {
namespace detail {

// A type's name, as both compilers understand it.
template <class T>
std::string type_name() {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(typeid(T).name(), nullptr, nullptr, &status),
                                                      std::free);
    return status == 0 ? std::string(name.get()) : std::string(typeid(T).name());
}

// Functions of the host are only read; attributes of theirs are unknown.
inline constexpr const char* kernel_flags[] = {"-std=c++20", "-default-device", "-diag-suppress=1097"};
inline constexpr const char* kernel_includes = "#include <grpo/grpo.hpp>\n#include <grpo/exec/cuda/kernels.cuh>\n";

// What is compiled: an instance of a kernel, and how its parameters lie in the caller's memory.
struct kernel_text {
    std::string name;    // as an expression
    std::string checks;  // that the device's compiler lays parameters out alike
};
template <class Kernel, class... Arguments>
kernel_text text_of() {
    const std::string full = type_name<Kernel>();  // grpo::v0::detail::kernels::NAME<...>
    constexpr std::string_view folder = "kernels::";
    const std::size_t at = full.find(folder);
    kernel_text text;
    text.name = "grpo::detail::" + full.substr(at + folder.size());
    const auto check = [&](const std::string& type, std::size_t size, std::size_t alignment) {
        text.checks += "static_assert(sizeof(" + type + ") == " + std::to_string(size) + " && alignof(" + type +
                       ") == " + std::to_string(alignment) + ", \"laid out otherwise than in the program\");\n";
    };
    (check(type_name<Arguments>(), sizeof(Arguments), alignof(Arguments)), ...);
    return text;
}

// The kernels that a program can launch, known before main(): whatever code launches one has an entry.
class program_kernels {
public:
    static program_kernels& all() {
        static program_kernels one;
        return one;
    }
    std::vector<kernel_text> list() const {
        const std::lock_guard lock(guard_);
        return {texts_.begin(), texts_.end()};
    }
    const kernel_text& add(kernel_text text) {
        const std::lock_guard lock(guard_);
        return texts_.emplace_back(std::move(text));
    }

private:
    mutable std::mutex guard_;
    std::deque<kernel_text> texts_;  // which stay where they are
};
template <class Kernel, class... Arguments>
struct program_kernel {
    static inline const kernel_text& entry = program_kernels::all().add(text_of<Kernel, Arguments...>());
};

// FNV-1a, twice: names of files, and their check sums.
struct fingerprint {
    std::uint64_t a = 0xcbf29ce484222325u;
    std::uint64_t b = 0x9ae16a3b2f90404fu;

    void add(std::string_view text) {
        for (const char c : text) {
            a = (a ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
            b = (b ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
        }
        a = (a ^ 0xffu) * 0x100000001b3u;  // where a text ends
        b = (b ^ 0xffu) * 0x100000001b3u;
    }
    std::string hex() const {
        char digits[33];
        std::snprintf(digits, sizeof digits, "%016llx%016llx", static_cast<unsigned long long>(a),
                      static_cast<unsigned long long>(b));
        return digits;
    }
};

// A kernel as machine code, by its mangled name.
struct compiled_kernel {
    std::string symbol;
    std::string code;
};

// Compiled kernels in a folder, one file each. A file that is not whole, or not what its name says, is as good as none.
class kernel_folder {
public:
    explicit kernel_folder(const std::string& path) : path_(path) {}

    bool read(const std::string& key, compiled_kernel& to) const {
        if (path_.empty()) return false;
        std::ifstream file(path_ / (key + ".cubin"), std::ios::binary);
        const std::string all(std::istreambuf_iterator<char>(file), {});
        const std::size_t sum = all.find('\n');
        const std::size_t symbol = all.find('\n', sum + 1);
        if (sum == std::string::npos || symbol == std::string::npos) return false;
        if (all.substr(0, sum) != check_sum(std::string_view(all).substr(sum + 1))) return false;
        to = {all.substr(sum + 1, symbol - sum - 1), all.substr(symbol + 1)};
        return true;
    }
    // Under another name first, so that no reader sees half of it. A folder that cannot be written to is no error.
    void write(const std::string& key, const compiled_kernel& kernel) const {
        if (path_.empty()) return;
        std::error_code failed;
        std::filesystem::create_directories(path_, failed);
        const std::string all = kernel.symbol + "\n" + kernel.code;
        const auto beside = path_ / (key + "." + std::to_string(::getpid()) + ".new");
        std::ofstream file(beside, std::ios::binary);
        file << check_sum(all) << '\n' << all;
        file.close();
        if (file.good()) std::filesystem::rename(beside, path_ / (key + ".cubin"), failed);
        if (!file.good() || failed) std::filesystem::remove(beside, failed);
    }

private:
    static std::string check_sum(std::string_view text) {
        fingerprint sum;
        sum.add(text);
        return sum.hex();
    }

    std::filesystem::path path_;
};

}  // namespace detail

struct nvrtc_options {
    // The folder that holds grpo/. Default: the headers embedded in the program, or those beside this one.
    std::string include{};
    // A folder for compiled kernels, shared by programs that trust each other. Default: none.
    std::string cache{};
    // Source text before the kernels: terms of your own, the same text that the program includes.
    std::string prelude{};
    // More flags for NVRTC.
    std::vector<std::string> flags{};
};

// Compiled kernels, for any number of executors and threads.
class nvrtc_kernels {
public:
    explicit nvrtc_kernels(nvrtc_options options = {}) : options_(std::move(options)), folder_(options_.cache) {}
    nvrtc_kernels(const nvrtc_kernels&) = delete;
    nvrtc_kernels& operator=(const nvrtc_kernels&) = delete;

    // The program's own, with the default options and GRPO_NVRTC_CACHE as its folder.
    static nvrtc_kernels& of_program() {
        const char* const folder = std::getenv("GRPO_NVRTC_CACHE");
        static nvrtc_kernels kernels({.cache = folder != nullptr ? folder : ""});
        return kernels;
    }

    // Compiles every kernel that this program can launch, for a compute capability of 10 major + minor. No GPU is needed: with a
    // cache, a machine without one prepares what others start with at once. Returns how many there are.
    // Errors: one that does not compile, with its first message; log() has them all.
    std::size_t compile_all(int capability) {
        const auto all = detail::program_kernels::all().list();
        for (const detail::kernel_text& text : all) (void)compiled(text, capability);
        return all.size();
    }

    // What NVRTC said of the last kernel that it compiled.
    std::string log() const {
        const std::lock_guard lock(guard_);
        return log_;
    }

    // For the executor: the kernel, loaded. `text`: the program's entry.
    CUkernel loaded(const detail::kernel_text& text, int capability) {
        const std::lock_guard lock(guard_);
        CUkernel& kernel = loaded_[{&text, capability}];
        if (kernel != nullptr) return kernel;
        const auto& driver = detail::cuda_driver::open();
        const detail::compiled_kernel& code = find(text, capability);
        CUlibrary library = nullptr;
        driver.require("cuLibraryLoadData",
                       driver.load(&library, code.code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
        driver.require("cuLibraryGetKernel", driver.kernel(&kernel, library, code.symbol.c_str()));
        return kernel;
    }
    // For the executor, and whoever wants the machine code.
    detail::compiled_kernel compiled(const detail::kernel_text& text, int capability) {
        const std::lock_guard lock(guard_);
        return find(text, capability);
    }

private:
    const detail::compiled_kernel& find(const detail::kernel_text& text, int capability) {
        const auto known = compiled_.find({text.name, capability});
        if (known != compiled_.end()) return known->second;
        const auto& library = detail::nvrtc_library::open();
        if (headers_.empty()) read_headers(library);
        const std::string source = detail::kernel_includes + options_.prelude + "\n" + text.checks;
        const std::string target = "-arch=sm_" + std::to_string(capability);
        detail::fingerprint key = of_headers_;
        key.add(source);
        key.add(target);
        key.add(text.name);
        detail::compiled_kernel kernel;
        if (!folder_.read(key.hex(), kernel)) {
            kernel = compile(library, text, source, target);
            folder_.write(key.hex(), kernel);
        }
        return compiled_[{text.name, capability}] = std::move(kernel);
    }

    void read_headers(const detail::nvrtc_library& library) {
        detail::header_texts headers = detail::kernel_headers(options_.include);
        int major = 0;
        int minor = 0;
        library.require("nvrtcVersion", library.version(&major, &minor));
        if (major < 12 || (major == 12 && minor < 1)) {
            detail::raise(detail::complain("nvrtc", "NVRTC", "has version %d.%d, but at least 12.1 is needed", major, minor));
        }
        of_headers_ = {};
        of_headers_.add(std::to_string(major) + "." + std::to_string(minor));
        for (const auto& [name, header] : headers) {
            of_headers_.add(name);
            of_headers_.add(header);
        }
        for (const std::string& flag : options_.flags) of_headers_.add(flag);
        headers_ = std::move(headers);
    }
    detail::compiled_kernel compile(const detail::nvrtc_library& library, const detail::kernel_text& text,
                                    const std::string& source, const std::string& target) {
        std::vector<const char*> texts;
        std::vector<const char*> names;
        for (const auto& [name, header] : headers_) {
            names.push_back(name.c_str());
            texts.push_back(header.c_str());
        }
        nvrtcProgram program = nullptr;
        library.require("nvrtcCreateProgram",
                        library.create(&program, source.c_str(), "kernel.cu", static_cast<int>(texts.size()),
                                       texts.data(), names.data()));
        const std::unique_ptr<nvrtcProgram, void (*)(nvrtcProgram*)> owner(
            &program, [](nvrtcProgram* p) { (void)detail::nvrtc_library::open().destroy(p); });
        library.require("nvrtcAddNameExpression", library.add_name(program, text.name.c_str()));
        std::vector<const char*> flags(std::begin(detail::kernel_flags), std::end(detail::kernel_flags));
        flags.push_back(target.c_str());
        for (const std::string& flag : options_.flags) flags.push_back(flag.c_str());
        const nvrtcResult done = library.compile(program, static_cast<int>(flags.size()), flags.data());
        std::size_t size = 0;
        library.require("nvrtcGetProgramLogSize", library.log_size(program, &size));
        log_.assign(size, '\0');
        library.require("nvrtcGetProgramLog", library.log(program, log_.data()));
        if (size > 0) log_.pop_back();
        if (done != NVRTC_SUCCESS) {
            const std::size_t at = log_.find("error");
            const std::string first =
                at == std::string::npos ? library.error_string(done) : log_.substr(at, log_.find('\n', at) - at);
            detail::raise(
                detail::complain("nvrtc", "the compiler", "says, for %s: %.160s", target.c_str(), first.c_str()));
        }
        detail::compiled_kernel kernel;
        const char* symbol = nullptr;
        library.require("nvrtcGetLoweredName", library.lowered_name(program, text.name.c_str(), &symbol));
        kernel.symbol = symbol;
        library.require("nvrtcGetCUBINSize", library.cubin_size(program, &size));
        kernel.code.assign(size, '\0');
        library.require("nvrtcGetCUBIN", library.cubin(program, kernel.code.data()));
        return kernel;
    }

    nvrtc_options options_;
    detail::kernel_folder folder_;
    mutable std::mutex guard_;
    detail::header_texts headers_;
    detail::fingerprint of_headers_;
    std::map<std::pair<std::string, int>, detail::compiled_kernel> compiled_;
    std::map<std::pair<const detail::kernel_text*, int>, CUkernel> loaded_;  // by the program's entries
    std::string log_;
};

}  // namespace grpo::inline v0
