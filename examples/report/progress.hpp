// A progress bar on stderr for long files; silent where stderr is not a terminal.
#pragma once

#include <unistd.h>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

namespace report {

class progress {
public:
    static constexpr std::int64_t long_file = 1 << 20;

    explicit progress(std::int64_t total_bytes)
        : total_(total_bytes), enabled_(total_bytes >= long_file && ::isatty(STDERR_FILENO) == 1) {}
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    ~progress() {
        if (enabled_) std::fprintf(stderr, "\r\033[K");
    }

    void at(std::int64_t bytes, std::int64_t line) {
        if (!enabled_) return;
        const int percent = static_cast<int>(std::min<std::int64_t>(100, bytes * 100 / total_));
        if (percent <= shown_) return;
        shown_ = percent;
        const int full = percent * width / 100;
        std::fprintf(
            stderr, "\rreading [%s%s] %3d %%  line %lld", std::string(static_cast<std::size_t>(full), '#').c_str(),
            std::string(static_cast<std::size_t>(width - full), '.').c_str(), percent, static_cast<long long>(line));
        std::fflush(stderr);
    }

private:
    static constexpr int width = 40;
    std::int64_t total_;
    bool enabled_;
    int shown_ = -1;
};

}  // namespace report
