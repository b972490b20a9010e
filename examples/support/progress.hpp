// A progress bar on stderr; where that is no terminal, a plain line every so often.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace support {

struct progress_options {
    bool terminal = ::isatty(STDERR_FILENO) == 1;
    double seconds_between_lines = 10;  // where stderr is no terminal; 0: none at all
    double seconds_between_bars = 0.1;
    int bar_width = 24;
    std::FILE* out = stderr;
};

// 0:07, 12:30, 1:02:03
inline std::string clock_text(double seconds) {
    const auto s = static_cast<std::int64_t>(std::max(0.0, seconds) + 0.5);
    if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
    return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

class progress {
public:
    // `total` steps of `what`, of which `done` are there already; those do not count for the time that is left.
    progress(std::string what, std::int64_t total, std::int64_t done = 0, const progress_options& options = {})
        : what_(std::move(what)), total_(std::max<std::int64_t>(total, 1)), first_(done), options_(options) {}
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    // A bar on a terminal stays as it was last drawn, and the next output begins a line of its own.
    ~progress() {
        if (drawn_) std::fputc('\n', options_.out);
    }

    void at(std::int64_t done, std::string_view text = {}) {
        const double elapsed = seconds();
        const double wait = options_.terminal ? options_.seconds_between_bars : options_.seconds_between_lines;
        const bool complete = done >= total_;
        if (!options_.terminal && wait <= 0) return;
        if (shown_ >= 0 && !complete && elapsed - shown_ < wait) return;
        if (complete && completed_) return;
        shown_ = elapsed;
        completed_ = complete;
        options_.terminal ? draw(done, elapsed, text) : say(done, elapsed, text);
        std::fflush(options_.out);
    }

    // Takes the bar from the terminal again, so that another line may be printed in its place.
    void clear() {
        if (!drawn_) return;
        fmt::print(options_.out, "\r\033[K");
        drawn_ = false;
        shown_ = -1;
    }

private:
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    }
    std::string times(std::int64_t done, double elapsed) const {
        if (done <= first_) return clock_text(elapsed);
        const double left = elapsed * static_cast<double>(total_ - done) / static_cast<double>(done - first_);
        return fmt::format("{} < {}", clock_text(elapsed), clock_text(left));
    }
    std::int64_t percent(std::int64_t done) const { return std::clamp<std::int64_t>(done * 100 / total_, 0, 100); }

    void draw(std::int64_t done, double elapsed, std::string_view text) {
        const auto width = static_cast<std::size_t>(options_.bar_width);
        const auto full = std::min(width, width * static_cast<std::size_t>(percent(done)) / 100);
        const std::string bar = std::string(full, '#') + std::string(width - full, '.');
        const std::string line =
            fmt::format("{} [{}] {:>3} %  {}  {}", what_, bar, percent(done), times(done, elapsed), text);
        fmt::print(options_.out, "\r{}\033[K", std::string_view(line).substr(0, columns()));
        drawn_ = true;
    }
    void say(std::int64_t done, double elapsed, std::string_view text) const {
        fmt::print(options_.out, "{} {}/{} ({} %)  {}  {}\n", what_, done, total_, percent(done), times(done, elapsed),
                   text);
    }
    std::size_t columns() const {
        winsize size{};
        if (::ioctl(::fileno(options_.out), TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 200;
        return static_cast<std::size_t>(size.ws_col) - 1;
    }

    std::string what_;
    std::int64_t total_;
    std::int64_t first_;
    progress_options options_;
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    double shown_ = -1;
    bool drawn_ = false;
    bool completed_ = false;
};

}  // namespace support
