// What the head's benchmark says of each case: a line of its table, and an entry of its JSON file.
#pragma once

#include <malloc.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "clock.hpp"
#include "table.hpp"

namespace bench {

// ---- memory ---------------------------------------------------------------------------------------------------

/// A line of /proc/self/status in bytes, or -1.
inline double status_of(const std::string& key) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.compare(0, key.size() + 1, key + ":") == 0) return 1024.0 * std::stod(line.substr(key.size() + 1));
    }
    return -1;
}

/// The most memory that run() had above what the process had before, in bytes; -1 where the kernel does not say.
inline double extra_memory(const std::function<void()>& run) {
    malloc_trim(0);
    const double before = status_of("VmRSS");
    bool reset = false;
    {
        std::ofstream file("/proc/self/clear_refs");
        file << 5 << std::flush;
        reset = file.good();
    }
    run();
    const double most = status_of("VmHWM");
    return reset && before >= 0 && most >= before ? most - before : -1;
}

// ---- one case -------------------------------------------------------------------------------------------------

struct contender {
    contestant timed;
    double error = 0;   // against double precision, relative to the largest value
    double extra = -1;  // bytes
};

/// Runs it once before its time counts, and says what it needs and how far off it is.
inline contender checked(const std::string& what, const contestant& c, const std::function<double()>& error,
                         double limit) {
    if (c.prepare) c.prepare();
    const double extra = extra_memory(c.run);
    const double off = error();
    check(what + ", " + c.name, off, limit);
    return {c, off, extra};
}

struct entry {
    std::string kernel;  // k1f, ...
    std::string text;    // sizes
    int threads = 1;
    double limit = 0;  // seconds
    std::vector<contender> field;
    std::vector<timing> times;  // of the field, in its order
};

inline bool is_ours(const std::string& name) {
    return name.compare(0, 4, "grpo") == 0;
}

/// The quickest of LibTorch's with autograd; closed has a column of its own.
inline std::size_t best_torch(const entry& e) {
    std::size_t best = e.times.size();
    for (std::size_t i = 0; i < e.times.size(); ++i) {
        if (is_ours(e.times[i].name) || e.times[i].name == "closed") continue;
        if (best == e.times.size() || e.times[i].median < e.times[best].median) best = i;
    }
    return best;
}

class report {
public:
    report(std::string path, nlohmann::json about) : path_(std::move(path)), all_(std::move(about)) {
        all_["cases"] = nlohmann::json::array();
        all_["bandwidths"] = nlohmann::json::array();
    }

    /// Measured limits, under the names that they have in the table below.
    void add_limits(const nlohmann::json& limits) { all_["bandwidths"].push_back(limits); }

    /// A line for the entry's contestant of ours at `ours`, or for LibTorch alone (ours = times.size()).
    void add(const entry& e, std::size_t ours) {
        if (!headed_) head();
        headed_ = true;
        const std::size_t best = best_torch(e);
        const double t = ours < e.times.size() ? e.times[ours].median : NAN;
        const timing* trl = find(e.times, "trl");
        const timing* closed = find(e.times, "closed");
        const auto ratio = [&](const timing* to) { return to ? to->median / t : NAN; };
        const contender none{{}, NAN, -1};
        const contender& mine = ours < e.field.size() ? e.field[ours] : none;
        std::printf("%-6s %-36s %d %s %s %-18s %s %s %s %s %s %s %s %s %s%s\n", e.kernel.c_str(), e.text.c_str(),
                    e.threads, number(t * 1e3, 9, 2).c_str(), number(e.times[best].median * 1e3, 9, 2).c_str(),
                    e.times[best].name.c_str(), number(ratio(&e.times[best]), 6, 2).c_str(),
                    number(ratio(trl), 6, 2).c_str(), number(ratio(closed), 6, 2).c_str(),
                    number(e.limit * 1e3, 9, 2).c_str(), number(100 * e.limit / t, 5, 0).c_str(),
                    mebibytes(mine.extra).c_str(), mebibytes(e.field[best].extra).c_str(), power(mine.error).c_str(),
                    power(e.field[best].error).c_str(), disturbed(e.times) ? " disturbed" : "");
        std::fflush(stdout);
        record(e, ours, best);
    }

    /// Writes the JSON file, if there is to be one; false if that failed.
    bool save() const {
        if (path_.empty()) return true;
        std::ofstream file(path_);
        file << all_.dump(1) << "\n";
        return file.good();
    }

private:
    static std::string number(double x, int width, int digits) {
        char text[32];
        if (std::isnan(x))
            std::snprintf(text, sizeof text, "%*s", width, "-");
        else
            std::snprintf(text, sizeof text, "%*.*f", width, digits, x);
        return text;
    }
    static std::string mebibytes(double bytes) { return number(bytes < 0 ? NAN : bytes / (1024.0 * 1024.0), 7, 1); }
    static std::string power(double x) {
        char text[32];
        std::snprintf(text, sizeof text, "%8.1e", x);
        return std::isnan(x) ? "       -" : text;
    }

    static void head() {
        std::printf("\n%-6s %-36s %s %9s %9s %-18s %6s %6s %6s %9s %5s %7s %7s %8s %8s\n", "", "", "t", "ours ms",
                    "torch ms", "form", "x", "x trl", "x cls", "limit ms", "%", "MiB", "torch", "error", "torch");
    }

    static nlohmann::json value(double x) { return std::isnan(x) ? nlohmann::json() : nlohmann::json(x); }

    void record(const entry& e, std::size_t ours, std::size_t best) {
        nlohmann::json field = nlohmann::json::array();
        for (std::size_t i = 0; i < e.times.size(); ++i) {
            if (is_ours(e.times[i].name) && i != ours) continue;
            field.push_back({{"name", e.times[i].name},
                             {"median_ms", 1e3 * e.times[i].median},
                             {"quickest_ms", 1e3 * e.times[i].quickest},
                             {"error", value(e.field[i].error)},
                             {"extra_bytes", value(e.field[i].extra < 0 ? NAN : e.field[i].extra)}});
        }
        nlohmann::json row = {{"kernel", e.kernel},
                              {"case", e.text},
                              {"threads", e.threads},
                              {"limit_ms", 1e3 * e.limit},
                              {"best_torch", e.times[best].name},
                              {"disturbed", disturbed(e.times)},
                              {"contestants", field}};
        if (ours < e.times.size()) {
            row["ours_ms"] = 1e3 * e.times[ours].median;
            row["ratio"] = e.times[best].median / e.times[ours].median;
            row["fraction_of_limit"] = e.limit / e.times[ours].median;
        }
        all_["cases"].push_back(row);
    }

    std::string path_;
    nlohmann::json all_;
    bool headed_ = false;
};

// ---- the run --------------------------------------------------------------------------------------------------

inline std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.compare(0, 10, "model name") == 0) return line.substr(line.find(':') + 2);
    }
    return "unknown";
}

inline std::string today() {
    char text[16];
    const std::time_t t = std::time(nullptr);
    std::tm parts{};
    std::strftime(text, sizeof text, "%Y-%m-%d", gmtime_r(&t, &parts));
    return text;
}

inline std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}

}  // namespace bench
