// A report on a file of rollouts: group sizes, degenerate groups, pass@k and maj@k, advantages, and a histogram of
// them.
//
//   rollout_report rollouts.jsonl --recipe grpo --svg advantages.svg
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "report/analysis.hpp"
#include "report/histogram.hpp"
#include "report/print.hpp"
#include "report/read.hpp"
#include "support/files.hpp"

namespace {

struct request {
    std::string file;
    std::string recipe = "grpo";
    std::string svg;
    std::vector<std::int64_t> ks;
    double threshold = 1.0;
    std::int64_t groups = 5;
    int bins = 30;
};

// grpo::error for an unknown name, and then the known ones.
grpo::recipe::card recipe_of(const std::string& name) {
    try {
        return grpo::recipe::find(name.c_str());
    } catch (const grpo::error& e) {
        throw report::bad_input(fmt::format("{}\nknown recipes: {}", e.what(), report::known_recipes()));
    }
}

std::vector<report::panel> panels_of(const report::analysis& a, const grpo::recipe::card& recipe) {
    std::vector<report::panel> panels;
    panels.push_back({fmt::format("Outcome supervision: advantages of {} responses (recipe {})",
                                  a.outcome_scored.size(), recipe.name),
                      "advantage", "responses", a.outcome_scored});
    if (!a.process.empty()) {
        panels.push_back({fmt::format("Process supervision: advantages of {} tokens", a.process.size()), "advantage",
                          "tokens", a.process});
    }
    return panels;
}

// Everything is read and computed before anything is written.
void run(const request& r) {
    const grpo::recipe::card recipe = recipe_of(r.recipe);
    const report::rollouts data = report::reader::read(r.file);
    const report::analysis a = report::analyst::study(data, recipe, r.threshold, r.ks);
    const std::string page = report::page::of(r.file, data, a, recipe, r.groups);
    if (!r.svg.empty()) support::write_file(r.svg, report::picture::of(panels_of(a, recipe), r.bins));
    fmt::print("{}", page);
    if (!r.svg.empty()) fmt::print("\nHistogram: {}\n", r.svg);
}

}  // namespace

int main(int argc, char** argv) {
    request r;
    CLI::App app("A report on a JSONL file of rollouts; docs/rollout-format.md describes the file.", "rollout_report");
    app.add_option("file", r.file, "JSONL of rollouts, or of worked solutions")->required();
    app.add_option("--recipe", r.recipe, "how rewards become advantages; --recipes lists them")->capture_default_str();
    app.add_flag_callback(
        "--recipes",
        [] {
            for (const grpo::recipe::card& c : grpo::recipe::cards()) {
                fmt::print("{:<30} {} ({})\n", c.name, c.summary, c.source);
            }
            throw CLI::Success();
        },
        "list the recipes and end");
    app.add_option("--svg", r.svg, "write a histogram of the advantages to this file");
    app.add_option("-k", r.ks, "for pass@k and maj@k; powers of two if not given")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::PositiveNumber);
    app.add_option("--threshold", r.threshold, "least reward of a correct response")->capture_default_str();
    app.add_option("--groups", r.groups, "how many prompts to print advantages of")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--bins", r.bins, "about how many bars")->capture_default_str()->check(CLI::Range(2, 200));
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }
    try {
        run(r);
    } catch (const std::exception& e) {
        std::fflush(stdout);
        fmt::print(stderr, "rollout_report: {}\n", e.what());
        return 1;
    }
    return 0;
}
