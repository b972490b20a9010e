// The peers alone: every form of every peer is checked against double precision, then timed. The first row of a table
// is the form the frameworks ship; the others say what a careful user of the same framework can have.
#include "cases.hpp"
#include "clock.hpp"
#include "handwritten.hpp"
#include "peer_torch.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

int failures = 0;

void check(const char* what, double error, double limit) {
    if (error <= limit) return;
    std::printf("WRONG  %s: relative error %.2e > %.0e\n", what, error, limit);
    ++failures;
}

/// The last column: how many times quicker than the first row, which is the form the frameworks ship.
void print(const char* title, const std::vector<bench::timing>& rows) {
    std::printf("\n%-60s %12s %12s %8s\n", title, "median us", "quickest", "speed");
    for (const auto& r : rows)
        std::printf("  %-58s %12.3f %12.3f %7.2fx\n", r.name.c_str(), r.median * 1e6, r.quickest * 1e6,
                    rows.front().median / r.median);
    std::fflush(stdout);
}

int rounds_for(std::int64_t tokens) {
    return tokens > 500000 ? 9 : 25;
}

void policy(std::int64_t rows, std::int64_t width, bench::masking kind, int threads) {
    const bench::batch b = bench::make_batch(rows, width, kind);
    const bench::answer truth = bench::policy_answer(b, 0.2, 0.2, 0.04);
    peer::set_threads(threads);
    const peer::policy_inputs in{
        rows, width, b.logp.data(), b.logp_old.data(), b.logp_ref.data(), b.advantage.data(), b.mask.data()};
    std::vector<bench::contestant> field;
    const std::pair<const char*, peer::policy_form> forms[] = {
        {"torch trl", peer::policy_form::trl},
        {"torch verl", peer::policy_form::verl},
        {"torch lean", peer::policy_form::lean},
        {"torch closed (no autograd)", peer::policy_form::closed}};
    for (const auto& [name, form] : forms) {
        auto loss = std::make_shared<peer::policy_loss>(in, form);
        check(name, std::abs(loss->run() - truth.value), 2e-6);
        check(name, bench::relative_error(loss->gradient(), truth.gradient), 2e-6);
        field.push_back({name, [loss] { loss->run(); }});
    }
    auto gradient = std::make_shared<std::vector<float>>(b.logp.size());
    const auto hand = [&b, gradient] {
        return handwritten::token_loss(b.rows, b.width, b.logp.data(), b.logp_old.data(), b.logp_ref.data(),
                                       b.advantage.data(), b.mask.data(), static_cast<double>(b.active), {},
                                       gradient->data());
    };
    check("handwritten", std::abs(hand() - truth.value), 1e-6);
    check("handwritten", bench::relative_error(gradient->data(), truth.gradient), 2e-6);
    if (threads == 1)
        field.push_back({"handwritten scalar", [hand, gradient] {
                             hand();
                             bench::keep(gradient->data());
                         }});
    const std::string title = "policy loss " + std::to_string(rows) + "x" + std::to_string(width) + ", " +
                              (kind == bench::masking::full ? "full" : "ragged") + " mask, " + std::to_string(threads) +
                              " thread(s)";
    print(title.c_str(),
          bench::race(field, rounds_for(b.tokens()), threads == 1 ? bench::timebase::thread : bench::timebase::wall));
}

void gae(std::int64_t rows, std::int64_t width) {
    const bench::batch full = bench::make_batch(rows, width, bench::masking::full);
    const bench::batch ragged = bench::make_batch(rows, width, bench::masking::ragged);
    const std::vector<double> truth = bench::gae_answer(full, 0.99, 0.95);
    const std::vector<double> masked = bench::gae_answer(ragged, 0.99, 0.95);
    peer::set_threads(1);
    std::vector<bench::contestant> field;
    const auto add = [&](const char* name, const bench::batch& b, const std::vector<double>& expected,
                         peer::gae_form form) {
        auto g = std::make_shared<peer::gae>(
            peer::gae_inputs{rows, width, b.reward.data(), b.value.data(), b.mask.data(), 0.99, 0.95}, form);
        g->run();
        check(name, bench::relative_error(g->advantage(), expected, &b.mask), 5e-6);
        field.push_back({name, [g] { g->run(); }});
    };
    add("torch trl loop", full, truth, peer::gae_form::trl);
    add("torch verl loop, masked", ragged, masked, peer::gae_form::verl);
    add("torch hoisted loop", full, truth, peer::gae_form::hoisted);
    const std::string title = "GAE " + std::to_string(rows) + "x" + std::to_string(width) + ", 1 thread";
    print(title.c_str(), bench::race(field, rounds_for(full.tokens()), bench::timebase::thread));
}

void groups(std::size_t count, std::size_t size) {
    const bench::batch b = bench::make_batch(1, static_cast<std::int64_t>(count), bench::masking::full);
    const std::vector<double> truth = bench::group_answer(b.reward, size, 1e-4);
    std::vector<bench::contestant> field;
    const std::pair<const char*, peer::group_form> forms[] = {{"torch trl", peer::group_form::trl},
                                                              {"torch broadcast", peer::group_form::broadcast},
                                                              {"torch std_mean", peer::group_form::together}};
    for (const auto& [name, form] : forms) {
        auto g = std::make_shared<peer::group_normalise>(b.reward.data(), static_cast<std::int64_t>(count),
                                                         static_cast<std::int64_t>(size), 1e-4, form);
        g->run();
        check(name, bench::relative_error(g->advantage(), truth), 5e-6);
        field.push_back({name, [g] { g->run(); }});
    }
    const std::string title =
        "group normalisation, " + std::to_string(count) + " rewards in groups of " + std::to_string(size);
    print(title.c_str(), bench::race(field, 25, bench::timebase::thread));
}

}  // namespace

int main(int argc, char** argv) {
    const bool stock = argc > 1 && std::strcmp(argv[1], "--stock") == 0;
    if (!stock) {
        bench::keep_freed_memory();
        peer::prefer_avx512();
    }
    peer::set_threads(1);
    std::printf("%s, %s\n", peer::describe().c_str(), stock ? "stock" : "tuned");
    const std::pair<std::int64_t, std::int64_t> sizes[] = {{8, 512}, {64, 1024}, {256, 4096}};
    for (const auto kind : {bench::masking::full, bench::masking::ragged})
        for (const auto& [rows, width] : sizes) policy(rows, width, kind, 1);
    for (const auto& [rows, width] : sizes) policy(rows, width, bench::masking::ragged, 2);
    gae(64, 1024);
    gae(256, 4096);
    groups(64, 8);
    groups(512, 8);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
