// The head beside LibTorch and beside the machine's limits: log-probabilities from logits, the loss from logits with
// its gradient in place or in another buffer, and the same from hidden states. Every contestant is checked against
// double precision, then all of them are timed in turn. The table's columns:
//   t        threads; with one its CPU time counts, with several wall time
//   x        how many times quicker we are than the quickest of LibTorch's forms with autograd, which is named
//   x trl    ... than TRL's form;   x cls   ... than LibTorch without autograd, as a careful user writes it by hand
//   limit    the bytes that must be moved, by the bandwidth measured over the same memory just before; for products of
//            matrices, their operations by the peak of registers
//   MiB      memory needed besides the caller's, ours and that form's;   error   of each, against double precision
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "clock.hpp"
#include "head_cases.hpp"
#include "head_linear.hpp"
#include "head_ours.hpp"
#include "head_report.hpp"
#include "limits.hpp"
#include "peer_torch.hpp"
#include "peer_torch_head.hpp"
#include "table.hpp"

namespace {

using bench::head_case;
using bench::storage;
using peer::head_form;

struct settings {
    bool quick = false;
    bool stock = false;
    bool peers = false;
    int rounds = 0;
    std::string json;
    std::string sizes;              // part of a case's text
    std::set<std::string> kernels;  // empty: all

    bool wants(const bench::head_spec& spec) const { return spec.text().find(sizes) != std::string::npos; }
    bool wants(const std::string& kernel) const { return kernels.empty() || kernels.count(kernel) > 0; }
};

constexpr const char* kernel_names[] = {"k1f", "k1e", "k1b", "k2", "k2new", "k3", "k3f"};

// ---- from logits ----------------------------------------------------------------------------------------------

/// k2new is k2 with the gradient in a buffer of its own; to LibTorch they are the same.
enum class kernel { k1f, k1e, k1b, k2 };

/// What a run left behind, compared with the case's answers.
template <class T>
double error_of(kernel which, const head_case& c, const float* logp, const float* entropy, const T* gradient) {
    if (which == kernel::k1b) return c.gradient_error(gradient, c.tokens.d_logp);
    if (which == kernel::k2) return c.gradient_error(gradient, c.tokens.slope);
    const double off = bench::relative_error(logp, c.tokens.logp);
    return which == kernel::k1f ? off : std::max(off, bench::relative_error(entropy, c.tokens.entropy));
}

template <class T>
bench::contender torch_contender(kernel which, const head_case& c, head_form form, const std::string& what) {
    const auto head = std::make_shared<peer::head>(c.tokens.inputs(c.logits.data()), form);
    const auto loss = std::make_shared<double>(c.tokens.loss);
    const bool narrow = c.tokens.spec.type == storage::bf16;
    const bench::contestant runner{peer::name(form), [which, head, loss] {
                                       if (which == kernel::k1f) head->forward();
                                       if (which == kernel::k1e) head->forward_with_entropy();
                                       if (which == kernel::k1b) head->forward_backward();
                                       if (which == kernel::k2) *loss = head->loss();
                                   }};
    const auto error = [&] {
        const bool entropy = which == kernel::k1e, gradient = which == kernel::k1b || which == kernel::k2;
        const double e = error_of(which, c, gradient ? nullptr : head->logp(), entropy ? head->entropy() : nullptr,
                                  gradient ? static_cast<const T*>(head->gradient()) : nullptr);
        head->release();
        return e;
    };
    bench::contender made = bench::checked(what, runner, error, narrow ? 0.1 : 2e-5);
    bench::check(what + ", " + runner.name + ", loss", std::abs(*loss - c.tokens.loss), narrow ? 2e-2 : 1e-5);
    return made;
}

/// Ours. `in_place`: the logits are in `work`, to be restored before each call, and the gradient replaces them.
template <class T>
bench::contender our_contender(kernel which, const head_case& c, int threads, bool in_place, const std::string& what) {
    T* const out = c.work.as<T>();
    const auto head =
        std::make_shared<ours::head<T>>(c.tokens.inputs(in_place ? c.work.data() : c.logits.data()), threads);
    const auto loss = std::make_shared<double>(c.tokens.loss);
    bench::contestant runner{in_place ? "grpo in place" : "grpo", [which, head, loss, out] {
                                 if (which == kernel::k1f) head->forward();
                                 if (which == kernel::k1e) head->forward_with_entropy();
                                 if (which == kernel::k1b) head->forward_backward(out);
                                 if (which == kernel::k2) *loss = head->loss(out);
                             }};
    if (in_place)
        runner.prepare = [&c] { c.restore_work(); };
    else if (which == kernel::k2)
        c.spoil_work();
    const auto error = [&] { return error_of(which, c, head->logp(), head->entropy(), out); };
    const bool rounded = sizeof(T) == 2 && (which == kernel::k1b || which == kernel::k2);
    bench::contender made = bench::checked(what, runner, error, rounded ? 5e-3 : 5e-6);
    bench::check(what + ", " + runner.name + ", loss", std::abs(*loss - c.tokens.loss), 1e-6);
    return made;
}

/// The least seconds for the bytes that must be moved. Tokens that a mask takes out need not be read by a loss; their
/// gradient is written.
double least_seconds(kernel which, bool in_place, const head_case& c, const bench::bandwidths& speed) {
    const double bytes = static_cast<double>(c.logits.bytes());
    const double read = bytes / speed.read;
    if (which == kernel::k1f || which == kernel::k1e) return read;
    const double active = static_cast<double>(c.tokens.active) / static_cast<double>(c.tokens.spec.tokens);
    const double both = 2 * bytes * active / (in_place ? speed.update : speed.copy);
    const double back = both + bytes * (1 - active) / speed.fill;
    return which == kernel::k1b ? read + back : back;
}

/// Five rounds, more where a round is short.
std::vector<bench::timing> timed(const std::vector<bench::contender>& field, int threads, int rounds) {
    std::vector<bench::contestant> all;
    for (const bench::contender& each : field) all.push_back(each.timed);
    const bench::timebase base = bench::clock_of(threads);
    if (rounds == 0) {
        const bench::contestant& first = all.back();
        if (first.prepare) first.prepare();
        const double start = bench::now(base);
        first.run();
        rounds = bench::now(base) - start < 5e-3 ? 25 : 5;
    }
    return bench::race(all, rounds, base);
}

template <class T>
void race_kernel(kernel which, const head_case& c, int threads, const bench::bandwidths& speed, const settings& set,
                 bench::report& to) {
    const std::string name = kernel_names[static_cast<int>(which)];
    bench::entry e{name, c.tokens.spec.text(), threads, 0, {}, {}};
    const std::string what = name + " " + e.text;
    const bool backward = which == kernel::k1b || which == kernel::k2;
    for (const auto form :
         {head_form::trl, head_form::log_softmax_gather, head_form::cross_entropy, head_form::closed}) {
        if (form == head_form::closed && (!backward || c.tokens.spec.type != storage::f32)) continue;
        e.field.push_back(torch_contender<T>(which, c, form, what));
    }
    const std::size_t ours = e.field.size();
    std::vector<std::string> names;
    if (set.wants(name)) {
        names.push_back(name);
        e.field.push_back(our_contender<T>(which, c, threads, backward, what));
    }
    if (which == kernel::k2 && set.wants("k2new")) {
        names.push_back("k2new");
        e.field.push_back(our_contender<T>(which, c, threads, false, what));
    }
    e.times = timed(e.field, threads, set.rounds);
    for (std::size_t i = 0; i < names.size(); ++i) {
        e.kernel = names[i];
        e.limit = least_seconds(which, backward && names[i] != "k2new", c, speed);
        to.add(e, ours + i);
    }
}

void from_logits(const bench::head_spec& spec, const settings& set, bench::report& to) {
    if (!set.wants(spec)) return;
    const head_case c(spec);
    for (const int threads : {1, 2}) {
        if (set.quick && threads > 1) continue;
        peer::set_threads(threads);
        const bench::bandwidths speed = bench::bandwidths_of(c.logits.data(), c.work.data(), c.logits.bytes(), threads);
        to.add_limits({{"case", spec.text()},
                       {"threads", threads},
                       {"read", speed.read},
                       {"update", speed.update},
                       {"copy", speed.copy},
                       {"fill", speed.fill}});
        for (const kernel which : {kernel::k1f, kernel::k1e, kernel::k1b, kernel::k2}) {
            if (!set.wants(kernel_names[static_cast<int>(which)]) && !(which == kernel::k2 && set.wants("k2new")))
                continue;
            if (spec.type == storage::f32)
                race_kernel<float>(which, c, threads, speed, set, to);
            else
                race_kernel<grpo::bfloat16>(which, c, threads, speed, set, to);
        }
    }
    malloc_trim(0);
    to.save();
}

std::vector<bench::head_spec> logit_cases(bool quick) {
    std::vector<bench::head_spec> all;
    for (const storage type : {storage::f32, storage::bf16}) {
        if (quick) {
            all.push_back({256, 128256, type});
            continue;
        }
        for (const std::int64_t vocabulary : {32000, 128256, 151936})
            for (const std::int64_t tokens : {256, 1024}) all.push_back({tokens, vocabulary, type});
        all.push_back({4096, 32000, type});
        all.push_back({.tokens = 1024, .vocabulary = 128256, .type = type, .half_masked = true});
        all.push_back({.tokens = 1024, .vocabulary = 128256, .type = type, .temperature = 0.7});
        all.push_back({1024, 50257, type});  // rows that begin at no boundary
        all.push_back({1024, 1000, type});
    }
    return all;
}

// ---- from hidden states ---------------------------------------------------------------------------------------

template <class T>
void race_linear(bool backward, const bench::linear_case& c, int threads, const bench::peaks& peak, const settings& set,
                 bench::report& to) {
    const bench::head_spec& spec = c.tokens.spec;
    bench::entry e{backward ? "k3" : "k3f", spec.text(), threads, 0, {}, {}};
    const std::string what = e.kernel + " " + e.text;
    e.field.push_back(bench::torch_linear<T>(c, head_form::trl, 0, backward, what));
    e.field.push_back(bench::torch_linear<T>(c, head_form::cross_entropy, 0, backward, what));
    e.field.push_back(bench::torch_linear<T>(c, head_form::cross_entropy, 256, backward, what));
    if (ours::linear_head<T>::built()) e.field.push_back(bench::our_linear<T>(c, threads, backward, what));
    const double operations = (backward ? 6.0 : 2.0) * static_cast<double>(spec.tokens * spec.width * spec.vocabulary);
    e.limit = operations / (spec.type == storage::f32 ? peak.f32 : std::max({peak.f32, peak.bf16_dot, peak.amx}));
    e.times = timed(e.field, threads, set.rounds);
    to.add(e, bench::is_ours(e.times.back().name) ? e.times.size() - 1 : e.times.size());
}

void from_hidden(const bench::head_spec& spec, const settings& set, bench::report& to) {
    if (!set.wants(spec)) return;
    const bench::linear_case c(spec);
    for (const int threads : {1, 2}) {
        if (set.quick && threads > 1) continue;
        peer::set_threads(threads);
        const bench::peaks peak = bench::peaks_of(threads);
        for (const bool backward : {true, false}) {
            if (!set.wants(backward ? "k3" : "k3f")) continue;
            if (spec.type == storage::f32)
                race_linear<float>(backward, c, threads, peak, set, to);
            else
                race_linear<grpo::bfloat16>(backward, c, threads, peak, set, to);
        }
    }
    malloc_trim(0);
    to.save();
}

std::vector<bench::head_spec> linear_cases(bool quick) {
    const auto made = [](std::int64_t tokens, std::int64_t width, std::int64_t vocabulary, storage type) {
        return bench::head_spec{.tokens = tokens, .vocabulary = vocabulary, .type = type, .width = width};
    };
    std::vector<bench::head_spec> all{made(1024, 1024, 32000, storage::bf16), made(1024, 1024, 32000, storage::f32)};
    if (quick) return all;
    all.push_back(made(1024, 1024, 151936, storage::bf16));
    all.push_back(made(1024, 1024, 151936, storage::f32));
    all.push_back(made(1024, 2048, 128256, storage::bf16));
    all.push_back(made(4096, 1024, 32000, storage::bf16));
    return all;
}

// ---- the program ----------------------------------------------------------------------------------------------

/// What happens once in a process, threads and their stacks among it, happens before memory is counted.
void warm_up() {
    const head_case c({.tokens = 128, .vocabulary = 64, .type = storage::f32});
    for (const int threads : {2, 1}) {
        peer::set_threads(threads);
        torch_contender<float>(kernel::k2, c, head_form::trl, "warm-up");
        our_contender<float>(kernel::k2, c, threads, true, "warm-up");
    }
}

nlohmann::json about(const settings& set) {
    nlohmann::json peaks = nlohmann::json::array();
    for (const int threads : {1, 2}) {
        const bench::peaks peak = bench::peaks_of(threads);
        std::printf("%d thread%s: f32 %.0f, bf16 dot %.0f, tiles %.0f GFLOP/s\n", threads, threads > 1 ? "s" : "",
                    peak.f32 * 1e-9, peak.bf16_dot * 1e-9, peak.amx * 1e-9);
        peaks.push_back({{"threads", threads}, {"f32", peak.f32}, {"bf16_dot", peak.bf16_dot}, {"tiles", peak.amx}});
    }
    return {{"date", bench::today()},
            {"processor", bench::processor()},
            {"processors", std::thread::hardware_concurrency()},
            {"compiler", bench::compiler()},
            {"torch", peer::describe()},
            {"tuned", !set.stock},
            {"peaks", peaks}};
}

int usage(const char* why) {
    std::fprintf(
        stderr,
        "head_table: %s\n"
        "usage: head_table [--quick] [--stock] [--peers] [--case KERNEL]... [--sizes TEXT] [--rounds N] [--json FILE]\n"
        "  --quick        few cases, one thread\n"
        "  --stock        LibTorch as its defaults leave it\n"
        "  --peers        LibTorch alone where the library has nothing to compare\n"
        "  --case KERNEL  k1f, k1e, k1b, k2, k2new, k3 or k3f; several may be given\n"
        "  --sizes TEXT   only cases whose sizes, as the table has them, contain it: 1024 x 128256, bf16, masked\n"
        "  --rounds N     samples of each contestant; by default 5, or 25 where one takes under 5 ms\n",
        why);
    return 2;
}

/// nullptr, or what is wrong.
const char* parse(int argc, char** argv, settings& set) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--quick") {
            set.quick = true;
            continue;
        }
        if (option == "--stock") {
            set.stock = true;
            continue;
        }
        if (option == "--peers") {
            set.peers = true;
            continue;
        }
        if (option != "--case" && option != "--sizes" && option != "--rounds" && option != "--json")
            return "unknown argument";
        if (i + 1 == argc) return "an option lacks its value";
        const std::string value = argv[++i];
        if (option == "--json") set.json = value;
        if (option == "--sizes") set.sizes = value;
        if (option == "--rounds" && (set.rounds = std::atoi(value.c_str())) < 1)
            return "--rounds expects a number above 0";
        if (option != "--case") continue;
        if (std::find(std::begin(kernel_names), std::end(kernel_names), value) == std::end(kernel_names))
            return "--case expects k1f, k1e, k1b, k2, k2new, k3 or k3f";
        set.kernels.insert(value);
    }
    return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
    settings set;
    if (argc == 2 && std::strcmp(argv[1], "--help") == 0) return usage("what it takes"), EXIT_SUCCESS;
    if (const char* const why = parse(argc, argv, set)) return usage(why);
    if (!set.stock) {
        bench::keep_freed_memory();
        peer::prefer_avx512();
    }
    peer::set_threads(1);
    std::printf("%s, %s\n", peer::describe().c_str(), set.stock ? "stock" : "tuned");
    warm_up();
    bench::report to(set.json, about(set));
    if (!to.save()) return usage("the file of --json cannot be written");
    const bool logits =
        set.wants("k1f") || set.wants("k1e") || set.wants("k1b") || set.wants("k2") || set.wants("k2new");
    if (logits) {
        for (const bench::head_spec& spec : logit_cases(set.quick)) from_logits(spec, set, to);
    }
    if (set.wants("k3") || set.wants("k3f")) {
        if (!ours::linear_head<float>::built() && !set.peers) {
            std::printf("\nk3: not built in the library; left out (LibTorch alone: --peers)\n");
        } else {
            for (const bench::head_spec& spec : linear_cases(set.quick)) from_hidden(spec, set, to);
        }
    }
    if (bench::failures > 0) std::printf("\n%d wrong answer(s): no time above counts\n", bench::failures);
    return bench::failures == 0 && to.save() ? EXIT_SUCCESS : EXIT_FAILURE;
}
