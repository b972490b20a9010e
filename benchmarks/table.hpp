// What compare prints: one table per race, and what makes a contestant's time not count.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "clock.hpp"

namespace bench {

/// How many contestants gave a wrong answer.
inline int failures = 0;

inline void check(const std::string& what, double error, double limit) {
    if (error <= limit) return;
    std::printf("WRONG  %s: relative error %.2e > %.0e\n", what.c_str(), error, limit);
    ++failures;
}

inline const timing* find(const std::vector<timing>& rows, const std::string& name) {
    for (const timing& row : rows) {
        if (row.name == name) return &row;
    }
    return nullptr;
}

/// How many times quicker `row` is than the row named `than`.
inline std::string speed(const std::vector<timing>& rows, const timing& row, const std::string& than) {
    const timing* other = find(rows, than);
    char text[32];
    std::snprintf(text, sizeof text, "%8.2fx", other ? other->median / row.median : 0.0);
    return text;
}

/// Whether something else had the processor: undisturbed, a median lies close above the quickest sample.
inline bool disturbed(const std::vector<timing>& rows) {
    for (const timing& row : rows) {
        if (row.median > 1.5 * row.quickest) return true;
    }
    return false;
}

/// `against`: the rows that the last columns compare with.
inline void print(const std::string& title, const std::vector<timing>& rows, const std::vector<std::string>& against) {
    std::printf("\n%s\n  %-44s %12s %12s", title.c_str(), "", "median us", "quickest us");
    for (const std::string& name : against) std::printf("  %20s", ("x " + name).c_str());
    std::printf("\n");
    for (const timing& row : rows) {
        std::printf("  %-44s %12.3f %12.3f", row.name.c_str(), row.median * 1e6, row.quickest * 1e6);
        for (const std::string& name : against) std::printf("  %20s", speed(rows, row, name).c_str());
        std::printf("\n");
    }
    if (disturbed(rows))
        std::printf("  disturbed: a median is over 1.5 x the quickest; repeat when nothing else runs\n");
    std::fflush(stdout);
}

}  // namespace bench
