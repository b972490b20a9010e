// What the example programs share: files, tables, progress, statistics, interrupts.
#include <sys/resource.h>
#include <unistd.h>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "support/csv.hpp"
#include "support/files.hpp"
#include "support/interrupt.hpp"
#include "support/plot.hpp"
#include "support/progress.hpp"
#include "support/statistics.hpp"
#include "support/table.hpp"

using namespace support;

namespace {

struct folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("grpo_support_{}", ::getpid());
    folder() {
        std::filesystem::remove_all(path);
        std::filesystem::create_directory(path);
    }
    ~folder() { std::filesystem::remove_all(path); }
    std::string of(const char* name) const { return (path / name).string(); }
    std::size_t files() const {
        return static_cast<std::size_t>(
            std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()));
    }
};

// No file grows beyond so many bytes while it lives, as on a full disk.
struct full_disk {
    rlimit before{};
    explicit full_disk(rlim_t bytes) {
        std::signal(SIGXFSZ, SIG_IGN);
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
        rlimit now = before;
        now.rlim_cur = bytes;
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &now) == 0);
    }
    ~full_disk() { ::setrlimit(RLIMIT_FSIZE, &before); }
};

template <class F>
std::string sentence(F&& f) {
    try {
        f();
    } catch (const std::exception& e) {
        return e.what();
    }
    return "nothing was refused";
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

const std::vector<std::string> columns{"step", "reward", "kl"};

void rows(csv_writer& csv, std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step <= last; ++step)
        csv.row(step, std::vector<double>{static_cast<double>(step) / 3, std::nan("")});
}

std::string shown(const progress_options& how, const std::vector<std::int64_t>& steps) {
    std::FILE* out = std::tmpfile();
    REQUIRE(out != nullptr);
    progress_options options = how;
    options.out = out;
    {
        progress bar("training", 10, 0, options);
        for (const std::int64_t step : steps) bar.at(step, fmt::format("reward {}", step));
    }
    std::string text(static_cast<std::size_t>(std::ftell(out)), '\0');
    std::rewind(out);
    CHECK(std::fread(text.data(), 1, text.size(), out) == text.size());
    std::fclose(out);
    return text;
}

}  // namespace

TEST_CASE("a file is written whole and read back") {
    const folder f;
    const std::string bytes("a\0b\r\n\xff", 6);
    write_file(f.of("x"), bytes);
    CHECK(read_file(f.of("x")) == bytes);
    write_file(f.of("x"), "");
    CHECK(read_file(f.of("x")).empty());
    CHECK(f.files() == 1);
}

TEST_CASE("a full disk leaves the old file, and nothing beside it") {
    const folder f;
    write_file(f.of("x"), "the old one");
    const std::string bytes(100000, 'n');
    const std::string said = [&] {
        const full_disk limit(50000);
        return sentence([&] { write_file(f.of("x"), bytes); });
    }();
    CHECK(said == f.of("x") + ": cannot be written (File too large)");
    CHECK(read_file(f.of("x")) == "the old one");
    CHECK(f.files() == 1);
    write_file(f.of("x"), bytes);
    CHECK(read_file(f.of("x")) == bytes);
}

TEST_CASE("what cannot be written or read is a sentence with the path and the reason") {
    const folder f;
    CHECK(sentence([&] { write_file(f.of("none/x"), "1"); }) ==
          f.of("none/x") + ": cannot be written (No such file or directory)");
    CHECK(sentence([&] { read_file(f.of("none")); }) ==
          f.of("none") + ": cannot be opened for reading (No such file or directory)");
    make_folder(f.of("a/b/c"));
    make_folder(f.of("a/b/c"));
    CHECK(std::filesystem::is_directory(f.of("a/b/c")));
    CHECK(sentence([&] { write_file(f.of("a"), "1"); }) == f.of("a") + ": cannot be written (Is a directory)");
    CHECK(sentence([&] { read_file(f.of("a")); }) == f.of("a") + ": cannot be read (Is a directory)");
    CHECK(f.files() == 1);
    write_file(f.of("x"), "1");
    CHECK(contains(sentence([&] { make_folder(f.of("x/y")); }), "x/y: no folder can be made there (Not a directory)"));
    CHECK(contains(sentence([&] { make_folder(f.of("x")); }), "x: no folder can be made there (Not a directory)"));
}

TEST_CASE("rows are there as soon as they are written, and numbers come back to the bit") {
    const folder f;
    csv_writer csv(f.of("m.csv"), columns);
    CHECK(read_file(f.of("m.csv")) == "step,reward,kl\n");
    csv.row(1, std::vector<double>{0.1, std::nan("")});
    CHECK(read_file(f.of("m.csv")) == "step,reward,kl\n1,0.1,\n");
    const double third = 1.0 / 3;
    csv.row(2, std::vector<double>{third, -1e-300});
    const std::string text = read_file(f.of("m.csv"));
    const auto at = text.find("\n2,") + 3;
    CHECK(std::stod(text.substr(at)) == third);
    CHECK(std::stod(text.substr(text.find(',', at) + 1)) == -1e-300);
    CHECK(contains(sentence([&] { csv.row(3, std::vector<double>{1}); }), "a row of 2 cells for 3 columns"));
}

TEST_CASE("a table that is taken up again equals one that never stopped") {
    const folder f;
    csv_writer whole(f.of("whole"), columns);
    rows(whole, 1, 9);
    for (const char* torn : {"", "7,0.4", "7,0.4,1", "x,,\n", "\n"}) {
        {
            csv_writer first(f.of("cut"), columns);
            rows(first, 1, 6);
        }
        if (*torn != '\0') write_file(f.of("cut"), read_file(f.of("cut")) + torn);
        {
            csv_writer second = csv_writer::resumed(f.of("cut"), columns, 4);
            rows(second, 5, 9);
        }
        CHECK(read_file(f.of("cut")) == read_file(f.of("whole")));
        csv_writer third = csv_writer::resumed(f.of("cut"), columns, 9);
        CHECK(read_file(f.of("cut")) == read_file(f.of("whole")));
    }
    csv_writer from_start = csv_writer::resumed(f.of("cut"), columns, 0);
    CHECK(read_file(f.of("cut")) == "step,reward,kl\n");
}

TEST_CASE("a table that does not belong to the run is refused and stays") {
    const folder f;
    {
        csv_writer csv(f.of("m"), columns);
        rows(csv, 1, 3);
    }
    const std::string before = read_file(f.of("m"));
    CHECK(contains(sentence([&] {
                       csv_writer::resumed(f.of("m"), {"step", "loss"}, 2);
                   }),
                   "m:1: expected the columns step,loss, got step,reward,kl"));
    CHECK(contains(sentence([&] { csv_writer::resumed(f.of("m"), columns, 5); }),
                   "m: the rows end with step 3, but the run goes on after step 5"));
    CHECK(contains(sentence([&] { csv_writer::resumed(f.of("none"), columns, 5); }), "none: cannot be opened"));
    CHECK(read_file(f.of("m")) == before);
}

TEST_CASE("a row that does not fit on the disk is not there at all") {
    const folder f;
    csv_writer csv(f.of("m"), columns);
    rows(csv, 1, 5);
    const std::string before = read_file(f.of("m"));
    {
        const full_disk limit(before.size() + 3);
        CHECK(contains(sentence([&] { rows(csv, 6, 6); }), "the row of step 6 cannot be written (File too large)"));
    }
    CHECK(read_file(f.of("m")) == before);
    rows(csv, 6, 6);
    CHECK(read_file(f.of("m")).size() > before.size());
}

TEST_CASE("progress: a bar on a terminal, plain lines elsewhere, nothing when asked for none") {
    progress_options bar;
    bar.terminal = true;
    bar.seconds_between_bars = 0;
    bar.bar_width = 10;
    const std::string drawn = shown(bar, {0, 5, 10, 10});
    CHECK(contains(drawn, "\rtraining [..........]   0 %"));
    CHECK(contains(drawn, "\rtraining [#####.....]  50 %"));
    CHECK(contains(drawn, "\rtraining [##########] 100 %"));
    CHECK(drawn.find("100 %") == drawn.rfind("100 %"));
    CHECK(contains(drawn, "reward 5"));
    CHECK(drawn.back() == '\n');

    progress_options plain;
    plain.terminal = false;
    plain.seconds_between_lines = 1000;
    const std::string said = shown(plain, {1, 2, 3, 10});
    CHECK(contains(said, "training 1/10 (10 %)"));
    CHECK(!contains(said, "training 2/10"));
    CHECK(contains(said, "training 10/10 (100 %)"));
    CHECK(!contains(said, "\r"));

    plain.seconds_between_lines = 0;
    CHECK(shown(plain, {1, 10}).empty());
}

TEST_CASE("clock") {
    CHECK(clock_text(7) == "0:07");
    CHECK(clock_text(750.2) == "12:30");
    CHECK(clock_text(3723) == "1:02:03");
    CHECK(clock_text(-1) == "0:00");
}

TEST_CASE("a table is aligned by characters") {
    table t({"arm", "mean"});
    t.add({"GRPO", "71.2 ± 0.8"});
    t.add({"RFT"});
    CHECK(t.text("") == "arm         mean\n----------------\nGRPO  71.2 ± 0.8\nRFT\n");
}

TEST_CASE("mean and deviation") {
    const auto s = summary(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9});
    CHECK(s.n == 8);
    CHECK(s.mean == 5);
    CHECK(s.deviation == doctest::Approx(std::sqrt(32.0 / 7)));
    CHECK(summary(std::vector<double>{3}).deviation == 0);
}

// Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
TEST_CASE("Wilson's interval against the published examples") {
    const auto is = [](const interval& i, double low, double high) {
        CHECK(std::abs(i.low - low) < 5e-5);
        CHECK(std::abs(i.high - high) < 5e-5);
    };
    is(wilson(81, 263), 0.2553, 0.3662);
    is(wilson(15, 148), 0.0624, 0.1605);
    is(wilson(0, 20), 0.0, 0.1611);
    is(wilson(1, 29), 0.0061, 0.1718);
    CHECK(wilson(20, 20).high == 1.0);
    CHECK(contains(sentence([] { wilson(3, 2); }), "wilson: 3 successes of 2 trials"));
}

// For zeros and ones the resampled sum is binomial: its 2.5 % and 97.5 % points for n = 100, p = 0.3 are 21 and 39.
TEST_CASE("the bootstrap of a share against the binomial distribution, and its coverage") {
    std::vector<double> x(100);
    for (std::size_t i = 0; i < 30; ++i) x[i] = 1;
    const interval i = bootstrap(x, 20000);
    CHECK(std::abs(i.low - 0.21) < 0.0101);
    CHECK(std::abs(i.high - 0.39) < 0.0101);
    CHECK(bootstrap(x).low == bootstrap(x).low);
    CHECK(bootstrap(std::vector<double>{2, 2, 2}).high == 2);
    CHECK(contains(sentence([] { bootstrap({}); }), "bootstrap: there are no values"));
}

// Pairs of zeros and ones: mean (c - b) / n, variance of the mean ((b + c) - (c - b)^2 / n) / (n (n - 1)).
TEST_CASE("a paired difference against the formula for discordant pairs") {
    std::vector<double> before, after;
    const auto add = [&](int count, double x, double y) {
        for (int i = 0; i < count; ++i) {
            before.push_back(x);
            after.push_back(y);
        }
    };
    add(40, 0, 0);
    add(30, 1, 1);
    add(9, 1, 0);
    add(21, 0, 1);
    const difference d = paired_difference(before, after);
    CHECK(d.mean == doctest::Approx(0.12));
    const double half = 1.959964 * std::sqrt((30 - 144.0 / 100) / (100.0 * 99));
    CHECK(d.within.low == doctest::Approx(0.12 - half));
    CHECK(d.within.high == doctest::Approx(0.12 + half));
    CHECK(contains(sentence([] { paired_difference(std::vector<double>{1}, {}); }), "1 values before and 0 after"));
}

TEST_CASE("the first interrupt is only noted") {
    catch_interrupts();
    CHECK(!interrupted());
    std::raise(SIGINT);
    CHECK(interrupted());
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

TEST_CASE("a run without a picture says how to draw it") {
    const folder f;
    curves c;
    c.out = f.of("a.svg");
    c.panels = {"reward=Reward"};
    c.runs = {{"grpo", f.of("m.csv")}};
    CHECK(draw(c, f.of("none.py")) == f.of("a.svg") + ": not drawn, for there is no script " + f.of("none.py"));
    write_file(f.of("curves.py"), "");
    ::setenv("GRPO_PLOT_PYTHON", "/bin/false", 1);
    CHECK(contains(draw(c, f.of("curves.py")), "not drawn, for no Python here has matplotlib; later"));
    CHECK(contains(draw(c, f.of("curves.py")), "'--run=grpo=" + f.of("m.csv") + "'"));
    write_file(f.of("python"), "#!/bin/sh\ncase \"$1\" in -c) exit 0;; esac\nexit 3\n");
    std::filesystem::permissions(f.of("python"), std::filesystem::perms::owner_all);
    ::setenv("GRPO_PLOT_PYTHON", f.of("python").c_str(), 1);
    CHECK(contains(draw(c, f.of("curves.py")), "not drawn, the script ended with status 3"));
    write_file(f.of("python"), "#!/bin/sh\nexit 0\n");
    std::filesystem::permissions(f.of("python"), std::filesystem::perms::owner_all);
    CHECK(draw(c, f.of("curves.py")).empty());
    ::unsetenv("GRPO_PLOT_PYTHON");
}
