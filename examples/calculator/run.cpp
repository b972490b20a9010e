#include "run.hpp"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "../support/csv.hpp"
#include "../support/files.hpp"
#include "../support/interrupt.hpp"
#include "../support/plot.hpp"
#include "../support/progress.hpp"
#include "checkpoint.hpp"
#include "evaluate.hpp"
#include "evaluate_json.hpp"
#include "evaluation_store.hpp"
#include "gsm8k.hpp"
#include "imitation.hpp"
#include "train.hpp"

namespace calculator {

namespace {

// Thrown where a Ctrl-C was seen and everything is in a state that can be saved.
struct interruption {};

std::unique_ptr<source> make_source(const settings& s) {
    if (s.gsm8k.empty()) return std::make_unique<generated>(s.task);
    auto data = std::make_unique<gsm8k>(gsm8k::files(s.gsm8k));
    fmt::print("{}\n", data->counts().text());
    return data;
}

settings completed(settings s, const source& problems) {
    constexpr std::int64_t beyond = 4;  // tokens that a response may be longer than any solution
    const std::int64_t needed = problems.longest_prompt() + problems.longest_response() + beyond;
    if (s.model.context == 0) s.model.context = needed;
    if (s.model.context < needed) {
        throw usage_error(fmt::format("--context: is {}, but the problems need {}", s.model.context, needed));
    }
    if (problems.held_out_count() > 0) s.held_out = std::min(s.held_out, problems.held_out_count());
    return s;
}

const std::vector<std::string> metric_columns{"step",
                                              "samples",
                                              "reward",
                                              "accuracy",
                                              "step_accuracy",
                                              "well_formed",
                                              "ended",
                                              "length",
                                              "useful_groups",
                                              "loss",
                                              "critic_loss",
                                              "kl",
                                              "moved",
                                              "entropy",
                                              "clip_fraction",
                                              "gradient_norm",
                                              "learning_rate",
                                              "rollbacks",
                                              "held_out_accuracy"};

double share(double sum, double weight) {
    return weight > 0 ? sum / weight : NAN;
}

class session {
public:
    explicit session(const settings& s)
        : problems_(make_source(s)),
          settings_(completed(s, *problems_)),
          config_(config_of(settings_)),
          crew_(s.threads),
          held_out_(problems_->held_out(settings_.held_out)) {
        make_method(s.method);  // refuses what cannot be before anything is done
        torch::manual_seed(s.seed);
        pupil_.emplace(settings_.model);
    }

    int go() {
        std::optional<checkpoint_reader> before = prepare_folder();
        support::catch_interrupts();
        try {
            if (!before || before->about().at("phase") == "imitating") {
                imitate(before ? &*before : nullptr);
                before.reset();
            }
            train(before ? &*before : nullptr);
        } catch (const interruption&) {
            fmt::print(stderr, "calculator: interrupted; {} is saved, and --resume goes on from there\n",
                       path("checkpoint.bin"));
            return 130;
        }
        return 0;
    }

private:
    using clock = std::chrono::steady_clock;

    std::string path(const std::string& name) const { return settings_.out + "/" + name; }

    // The checkpoint to go on from, or nothing and a folder with the configuration of a new run.
    std::optional<checkpoint_reader> prepare_folder() {
        namespace fs = std::filesystem;
        std::error_code failed;
        if (settings_.resume) {
            if (!fs::exists(path("checkpoint.bin"), failed))
                throw usage_error(fmt::format("--resume: there is no {}", path("checkpoint.bin")));
            checkpoint_reader from(path("checkpoint.bin"));
            from.require_same(config_, "", "run");
            return from;
        }
        const bool taken = fs::exists(settings_.out, failed) &&
                           (!fs::is_directory(settings_.out, failed) || !fs::is_empty(settings_.out, failed));
        if (taken && !settings_.force) {
            throw usage_error(fmt::format(
                "--out: {} is there already; --resume goes on with the run in it, --force replaces it", settings_.out));
        }
        load_start();
        support::make_folder(settings_.out);
        support::write_file(path("config.json"), config_.dump(2) + "\n");
        return std::nullopt;
    }

    void load_start() {
        if (settings_.init.empty()) return;
        checkpoint_reader from(settings_.init);
        from.require_same(config_, "model", "model");
        from.weights("model", *pupil_->model);
    }

    // ---- imitation

    void imitate(checkpoint_reader* from) {
        const bool given = !settings_.init.empty();
        std::int64_t k = 0;
        if (from != nullptr) {
            from->weights("model", *pupil_->model);
            from->optimizer(pupil_->optimizer);
            k = from->about().at("step");
        }
        if (given) return;
        auto table = from != nullptr ? support::csv_writer::resumed(path("sft.csv"), {"step", "loss"}, k)
                                     : support::csv_writer(path("sft.csv"), {"step", "loss"});
        imitation teach(settings_, *problems_, *pupil_, crew_);
        support::progress bar("imitating", settings_.sft_steps, k);
        const auto save = [&] {
            table.sync();
            checkpoint_writer to;
            to.weights("model", *pupil_->model);
            to.optimizer(pupil_->optimizer);
            to.save(path("checkpoint.bin"), {{"config", config_}, {"phase", "imitating"}, {"step", k}});
        };
        if (from == nullptr) save();
        while (k < settings_.sft_steps) {
            const double loss = teach.step(k);
            table.row(++k, std::vector<double>{loss});
            bar.at(k, fmt::format("loss {:.3f}", loss));
            if (support::interrupted()) {
                save();
                throw interruption();
            }
            if (k % (4 * settings_.save_every) == 0) save();
        }
        pupil_->forget();
    }

    // ---- evaluation

    sampler sampler_of(transformer& model, std::int64_t longest) {
        return [this, &model, longest](std::span<const problem> problems, int samples, bool greedy) {
            const sampling how{.temperature = greedy ? 0.0 : 1.0,
                               .longest = longest,
                               .key = support::mixed({settings_.seed, 3, problems.size()})};
            std::vector<std::vector<token>> texts;
            for (response& r : sample(model, problems, samples, how, crew_)) texts.push_back(std::move(r.tokens));
            return texts;
        };
    }

    evaluation evaluated(const std::string& what, transformer& model, std::int64_t longest) {
        support::progress bar(what, static_cast<std::int64_t>(held_out_.size()));
        return evaluate(held_out_, sampler_of(model, longest),
                        {.samples = static_cast<int>(settings_.samples),
                         .ks = settings_.ks(),
                         .batch = 100,
                         .progress = [&](std::int64_t done, std::int64_t) {
                             if (support::interrupted()) throw interruption();
                             bar.at(done);
                         }});
    }

    double greedy_accuracy(std::int64_t longest) {
        const auto count = std::min(held_out_.size(), static_cast<std::size_t>(settings_.curve_problems));
        const auto e = evaluate(std::span(held_out_).first(count), sampler_of(*pupil_->model, longest),
                                {.samples = 0, .ks = {}, .batch = count, .progress = {}});
        return support::summary(e.greedy).mean;
    }

    std::vector<std::string> transcripts(transformer& model, std::int64_t longest) {
        const auto few = std::span(held_out_).first(std::min<std::size_t>(6, held_out_.size()));
        std::vector<std::string> lines;
        const auto texts = sampler_of(model, longest)(few, 1, true);
        for (std::size_t i = 0; i < few.size(); ++i) {
            const checked c = check(few[i], texts[i]);
            lines.push_back(
                fmt::format("{}{}{}", vocabulary::decode(texts[i]), c.ended ? "" : "...", c.answer ? "" : "  (wrong)"));
        }
        return lines;
    }

    // ---- reinforcement

    struct tables {
        support::csv_writer metrics;
        support::csv_writer timing;
    };
    tables open_tables(bool resumed, std::int64_t step) const {
        const std::vector<std::string> timing{"step", "seconds", "tokens_per_second"};
        if (resumed)
            return {support::csv_writer::resumed(path("metrics.csv"), metric_columns, step),
                    support::csv_writer::resumed(path("timing.csv"), timing, step)};
        return {support::csv_writer(path("metrics.csv"), metric_columns),
                support::csv_writer(path("timing.csv"), timing)};
    }

    void train(checkpoint_reader* from) {
        trainer t(settings_, *problems_, *pupil_, crew_);
        if (from != nullptr) restore(t, *from);
        tables to = open_tables(from != nullptr, t.state.step);
        try {
            if (from == nullptr) save(t);
            if (!before_) {
                before_ = evaluated("evaluating", *t.reference, t.longest_response());
                transcripts_ = transcripts(*t.reference, t.longest_response());
                save(t);
            }
            reinforce(t, to);
            finish(t);
        } catch (const interruption&) {
            sync(to);
            save(t);
            throw;
        }
    }

    void restore(trainer& t, checkpoint_reader& from) {
        const auto& about = from.about();
        from.weights("model", *pupil_->model);
        from.optimizer(pupil_->optimizer);
        from.weights("reference", *t.reference);
        from.weights("good", *t.good);
        t.state.step = about.at("step");
        t.state.problems = about.at("problems");
        t.state.samples = about.at("samples");
        t.state.watch.restore(about.at("guard"));
        if (about.contains("before")) {
            before_ = evaluation_from(about.at("before"));
            transcripts_ = about.at("transcripts").get<std::vector<std::string>>();
        }
    }

    void save(const trainer& t) const {
        checkpoint_writer to;
        to.weights("model", *pupil_->model);
        to.optimizer(pupil_->optimizer);
        to.weights("reference", *t.reference);
        to.weights("good", *t.good);
        nlohmann::ordered_json about{{"config", config_},          {"phase", "reinforcing"},
                                     {"step", t.state.step},       {"problems", t.state.problems},
                                     {"samples", t.state.samples}, {"guard", t.state.watch.state()}};
        if (before_) {
            about["before"] = stored(*before_);
            about["transcripts"] = transcripts_;
        }
        to.save(path("checkpoint.bin"), about);
    }
    static void sync(const tables& to) {
        to.metrics.sync();
        to.timing.sync();
    }

    void reinforce(trainer& t, tables& to) {
        support::progress bar("reinforcing", settings_.steps, t.state.step);
        if (t.state.step == 0 && settings_.evaluate_every > 0) {
            std::vector<double> row(metric_columns.size() - 1, NAN);
            row.front() = 0;
            row.back() = greedy_accuracy(t.longest_response());
            to.metrics.row(0, row);
        }
        while (!t.done()) {
            const auto began = clock::now();
            const step_report r = t.step();
            const double seconds = std::chrono::duration<double>(clock::now() - began).count();
            write_row(t, r, to, seconds);
            tell(t, r, seconds, bar);
            if (support::interrupted()) throw interruption();
            if (t.state.step % settings_.save_every == 0) {
                sync(to);
                save(t);
            }
        }
        sync(to);
        save(t);
    }

    void write_row(trainer& t, const step_report& r, tables& to, double seconds) {
        const tally& a = r.answers;
        const bool due = settings_.evaluate_every > 0 && (t.state.step % settings_.evaluate_every == 0 || t.done());
        if (due) held_out_accuracy_ = greedy_accuracy(t.longest_response());
        const std::vector<double> row{static_cast<double>(t.state.samples),
                                      a.share(a.reward),
                                      a.share(a.right),
                                      a.share(a.steps_right),
                                      a.share(a.well_formed),
                                      a.share(a.ended),
                                      a.share(static_cast<double>(a.tokens)),
                                      share(static_cast<double>(a.useful_groups), static_cast<double>(a.groups)),
                                      r.last.loss,
                                      r.last.critic_loss,
                                      share(r.last.kl, r.last.ref_weight),
                                      share(r.last.moved, r.last.weight),
                                      share(r.first.entropy, r.first.weight),
                                      share(r.last.clipped, r.last.weight),
                                      r.gradient,
                                      r.rate,
                                      static_cast<double>(t.state.watch.times()),
                                      due ? held_out_accuracy_ : NAN};
        to.metrics.row(t.state.step, row);
        to.timing.row(t.state.step, std::vector<double>{seconds, static_cast<double>(a.tokens) / seconds});
    }

    void tell(const trainer& t, const step_report& r, double seconds, support::progress& bar) const {
        const tally& a = r.answers;
        if (r.verdict == guard::verdict::collapsed) {
            bar.clear();
            fmt::print(stderr,
                       "calculator: step {}: training collapsed ({:.1f} % right, the best running mean was {:.1f} %); "
                       "back to the last good weights, at {:g} times the learning rate\n",
                       t.state.step, 100 * a.share(a.right), 100 * t.state.watch.best(), t.state.watch.scale());
        }
        std::string text = fmt::format(
            "reward {:.2f}  right {:.2f}  KL {:.3f}  entropy {:.2f}  clipped {:.3f}  length {:.1f}  "
            "{:.0f} tokens/s",
            a.share(a.reward), a.share(a.right), share(r.last.kl, r.last.ref_weight),
            share(r.first.entropy, r.first.weight), share(r.last.clipped, r.last.weight),
            a.share(static_cast<double>(a.tokens)), static_cast<double>(a.tokens) / seconds);
        if (std::isfinite(held_out_accuracy_)) text += fmt::format("  held out {:.3f}", held_out_accuracy_);
        bar.at(t.state.step, text);
    }

    // ---- the end

    void finish(trainer& t) {
        const evaluation after = evaluated("evaluating", *pupil_->model, t.longest_response());
        auto results = comparison_json(*before_, after);
        results["samples"] = t.state.samples;
        results["steps"] = t.state.step;
        results["rollbacks"] = t.state.watch.times();
        support::write_file(path("results.json"), results.dump(2) + "\n");
        fmt::print("\n{}\n", comparison_table(*before_, after, "after SFT", "after RL"));
        const auto now = transcripts(*pupil_->model, t.longest_response());
        for (std::size_t i = 0; i < now.size(); ++i)
            fmt::print("  {}\n      SFT  {}\n      RL   {}\n", held_out_[i].prompt, transcripts_[i], now[i]);
        if (t.state.step > 0) draw();
        fmt::print("\nEverything is in {}\n", settings_.out);
    }

    void draw() const {
        const std::string problem =
            support::draw({.out = path("curves.svg"),
                           .title = fmt::format("Learning to calculate: {}", settings_.method.name),
                           .x = "step",
                           .x_label = "step",
                           .panels = {"accuracy,held_out_accuracy%=Right answers", "kl=KL to the reference",
                                      "entropy=Entropy", "length=Response length"},
                           .runs = {{settings_.method.name, path("metrics.csv")}},
                           .more = {"--smooth=9", "--columns=2"}});
        if (!problem.empty()) fmt::print(stderr, "calculator: {}\n", problem);
    }

    std::unique_ptr<source> problems_;
    settings settings_;
    nlohmann::ordered_json config_;
    workers crew_;
    std::vector<problem> held_out_;
    std::optional<learner> pupil_;
    std::optional<evaluation> before_;
    std::vector<std::string> transcripts_;
    double held_out_accuracy_ = NAN;
};

}  // namespace

int run(const settings& s) {
    return session(s).go();
}

}  // namespace calculator
