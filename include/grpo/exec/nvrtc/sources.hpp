// The headers that kernels are compiled from: embedded in the program, or read where they lie.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>

// The build system writes it; see docs/cuda.md.
#if __has_include(<grpo/exec/nvrtc/embedded.hpp>)
#include <grpo/exec/nvrtc/embedded.hpp>
#endif

namespace grpo::inline v0::detail {

// By the names in which they include each other.
using header_texts = std::vector<std::pair<std::string, std::string>>;

// The standard headers that kernels see; all have the text of std.hpp.
inline void add_standard_headers(header_texts& to) {
    for (const char* const name :
         {"cmath", "concepts", "cstddef", "cstdint", "cstdio", "cstdlib", "exception", "limits", "type_traits"}) {
        to.emplace_back(name, "#include <grpo/exec/nvrtc/std.hpp>\n");
    }
}

// Every header below `folder`/grpo but the adapters, which no kernel includes.
inline header_texts headers_below(const std::filesystem::path& folder) {
    header_texts headers;
    std::error_code failed;
    const auto root = folder / "grpo";
    for (std::filesystem::recursive_directory_iterator at(root, failed), end; !failed && at != end;
         at.increment(failed)) {
        if (at->path().filename() == "adapt") at.disable_recursion_pending();
        const auto kind = at->path().extension();
        if (kind != ".hpp" && kind != ".cuh") continue;
        std::ifstream file(at->path(), std::ios::binary);
        headers.emplace_back(at->path().lexically_relative(folder).generic_string(),
                             std::string(std::istreambuf_iterator<char>(file), {}));
    }
    if (headers.empty()) {
        raise(complain("nvrtc", "include", "is %.160s, where no headers of grpo lie", folder.string().c_str()));
    }
    return headers;
}

// From `include`, if it is given; else the embedded ones; else GRPO_INCLUDE; else those beside this header.
inline header_texts kernel_headers(const std::string& include) {
    header_texts headers;
    if (!include.empty()) {
        headers = headers_below(include);
    } else {
#if defined(GRPO_NVRTC_EMBEDDED)
        for (const embedded_header& h : embedded_headers) headers.emplace_back(h.name, h.text);
#else
        const char* const folder = std::getenv("GRPO_INCLUDE");
        headers = headers_below(folder != nullptr ? folder : std::filesystem::path(__FILE__).parent_path() / "../../..");
#endif
    }
    add_standard_headers(headers);
    return headers;
}

}  // namespace grpo::inline v0::detail
