// The calculator's task: expressions, problems, the check of responses, generated and written problems.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "calculator/check.hpp"
#include "calculator/generate.hpp"
#include "calculator/gsm8k.hpp"

using namespace calculator;

namespace {

problem posed(const char* text) {
    const auto e = parse(text);
    REQUIRE(e);
    const auto p = pose(*e);
    REQUIRE(p);
    return *p;
}

std::string rewritten(const char* input) {
    const auto e = parse(input);
    REQUIRE(e);
    return text(*e).value();
}

checked checked_text(const problem& p, const char* response, bool ended = true) {
    return check(p, vocabulary::encode(response, ended));
}

std::vector<bool> right_steps(const checked& c) {
    std::vector<bool> right;
    for (const checked_step& s : c.steps) right.push_back(s.right);
    return right;
}

obstacle refusal(const char* text) {
    obstacle why{};
    const auto e = parse(text);
    REQUIRE(e);
    REQUIRE(!pose(*e, &why));
    return why;
}

struct folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / "grpo_calculator_task";
    folder() {
        std::filesystem::remove_all(path);
        std::filesystem::create_directory(path);
    }
    ~folder() { std::filesystem::remove_all(path); }
    std::string write(const char* name, const std::string& text) const {
        std::ofstream(path / name) << text;
        return (path / name).string();
    }
};

std::string solved(const char* answer) {
    return nlohmann::json{{"question", "How many?"}, {"answer", answer}}.dump() + "\n";
}

template <class F>
std::string sentence(F&& f) {
    try {
        f();
    } catch (const support::bad_input& e) {
        return e.what();
    }
    return "nothing was refused";
}

std::set<std::string> prompts(const std::vector<problem>& problems) {
    std::set<std::string> all;
    for (const problem& p : problems) all.insert(p.prompt);
    return all;
}

}  // namespace

TEST_CASE("a solution reduces one operation at a time: parentheses, then * and /, then from the left") {
    CHECK(posed("12+7*3").response == "12+21=33");
    CHECK(posed("1+2+4*5").response == "1+2+20=3+20=23");
    CHECK(posed("2*3+4*5").response == "6+4*5=6+20=26");
    CHECK(posed("(1+2)*3+4*5").response == "3*3+4*5=9+4*5=9+20=29");
    CHECK(posed("20-(8-3)").response == "20-5=15");
    CHECK(posed("40/(2*(9-4))").response == "40/(2*5)=40/10=4");
    CHECK(posed("7/2*4").response == "3.5*4=14");
    CHECK(posed("10*0.25").response == "2.5");
}

TEST_CASE("an expression is written with the parentheses that it needs and no others") {
    for (const char* text : {"1-(2-3)", "1-2-3", "(1+2)*3", "1+2*3", "8/(4/2)", "8/4/2", "1+(2+3)", "2*(3*4)"})
        CHECK(rewritten(text) == text);
    CHECK(rewritten("((1))+(2*3)") == "1+2*3");
    CHECK(rewritten("1,200 * 20%") == "1200*0.2");
    CHECK(rewritten(".50+07") == "0.5+7");
}

TEST_CASE("what makes no problem, and why") {
    CHECK(refusal("7") == obstacle::no_operation);
    CHECK(refusal("7/(3-3)") == obstacle::no_value);
    CHECK(refusal("3-7+9") == obstacle::negative);
    CHECK(refusal("99999+1") == obstacle::large);
    CHECK(refusal("10/3*3") == obstacle::decimals);
    CHECK(refusal("1/8") == obstacle::decimals);
    for (const char* text : {"", "1+", "(1+2", "1+2)", "-3+4", "1--2", "1+2=", "a+1", "1e5+1", "5(3)"})
        CHECK(!parse(text));
}

TEST_CASE("characters and tokens") {
    CHECK(vocabulary::encode("0+=", true) == std::vector<token>{0, 10, 17, 18});
    const std::vector<token> tokens{1, 10, 2, 17, 19, -1, 1000, 18, 4};
    CHECK(vocabulary::decode(tokens) == "1+2=???");
    CHECK(vocabulary::decode(vocabulary::encode("(3.5-1)*8/4=", true)) == "(3.5-1)*8/4=");
}

TEST_CASE("a right response: each step ends at its = or at the end token") {
    const checked c = checked_text(posed("12+7*3"), "12+21=33");
    CHECK((c.ended && c.well_formed && c.answer));
    CHECK(c.answer_text == "33");
    CHECK(right_steps(c) == std::vector<bool>{true, true});
    CHECK(c.steps[0].end == 5);
    CHECK(c.steps[1].end == 8);
    CHECK(c.step_accuracy() == 1.0);
}

TEST_CASE("wrong, short-cut, repeated and unfinished responses") {
    const problem p = posed("12+7*3");
    const auto answer = [&](const char* text) { return checked_text(p, text).answer; };
    CHECK(answer("33"));
    CHECK(!answer("12+21"));
    CHECK(!answer("33="));
    CHECK(!answer("34"));
    CHECK(!answer("033"));
    CHECK(!answer("33.0"));
    CHECK(!answer("(33)"));
    CHECK(!answer("+33"));
    CHECK(!answer("--33"));
    CHECK(!answer(""));
    CHECK(answer("12+20=33"));

    CHECK(right_steps(checked_text(p, "12+20=33")) == std::vector<bool>{false, true});
    CHECK(right_steps(checked_text(p, "12+21=34")) == std::vector<bool>{true, false});
    CHECK(right_steps(checked_text(p, "12+7*3=33")) == std::vector<bool>{false, true});
    CHECK(right_steps(checked_text(p, "33=33=33")) == std::vector<bool>{true, false, false});
    CHECK(right_steps(checked_text(p, "12+21=12+21=33")) == std::vector<bool>{true, false, true});
    CHECK(right_steps(checked_text(p, "12--21=33")) == std::vector<bool>{false, true});
    CHECK(!checked_text(p, "33=33").well_formed);
    CHECK(!checked_text(p, "12+21=12+21=33").well_formed);
    CHECK(checked_text(p, "12+20=35").well_formed);

    const checked cut = checked_text(p, "12+21=33", false);
    CHECK((!cut.ended && !cut.answer && !cut.well_formed));
    CHECK(cut.answer_text.empty());
    CHECK(right_steps(cut) == std::vector<bool>{true, true});
    CHECK(cut.steps[1].end == 7);
    const checked closed = checked_text(p, "12+21=", false);
    CHECK(closed.steps.size() == 1);
    CHECK(closed.steps[0].end == 5);
}

TEST_CASE("garbage has no answer, and its steps stay inside the response") {
    const problem p = posed("123*457");
    std::vector<std::vector<token>> all{{}, {18}, {17}, {17, 17, 18}, {19, 19}, {1, 19, 18}, {-5, 99, 3}};
    all.push_back(vocabulary::encode(std::string(100000, '(') + "1", true));
    all.push_back(vocabulary::encode(std::string(390, '9'), true));
    all.push_back(vocabulary::encode("99999999*999999999*999999999*999999999*99999999*9999999999", true));
    all.push_back(vocabulary::encode("1/0", true));
    all.push_back(vocabulary::encode(std::string(390, '-') + "33", true));
    all.push_back(vocabulary::encode("0.000000000000000001/99999999999999999/99999999999999999/9999999999", true));
    std::string sum = "1";
    for (int i = 0; i < 190; ++i) sum += "*9";
    all.push_back(vocabulary::encode(sum, true));
    choices random(7);
    for (int i = 0; i < 20000; ++i) {
        std::vector<token> tokens(static_cast<std::size_t>(random.integer(0, 30)));
        for (token& t : tokens) t = random.integer(0, vocabulary::size - 1);
        all.push_back(tokens);
    }
    for (const auto& response : all) {
        const checked c = check(p, response);
        CHECK(!c.answer);
        REQUIRE(!c.steps.empty());
        std::int64_t before = -1;
        for (const checked_step& s : c.steps) {
            CHECK(s.end > before);
            CHECK((s.end < static_cast<std::int64_t>(response.size()) || response.empty()));
            CHECK(!s.right);
            before = s.end;
        }
    }
}

TEST_CASE("the training stream has no state, depends on its seed, and never meets a held-out expression") {
    const generated source;
    const auto all = source.train(5, 0, 6000);
    const auto part = source.train(5, 4000, 10);
    for (std::size_t i = 0; i < part.size(); ++i) CHECK(part[i].prompt == all[4000 + i].prompt);
    CHECK(prompts(source.train(6, 0, 50)) != prompts(source.train(5, 0, 50)));

    const auto held_out = source.held_out(1500);
    const auto different = prompts(held_out);
    CHECK(different.size() == held_out.size());
    for (const problem& p : held_out) CHECK(source.is_held_out(p));
    for (std::uint64_t seed = 0; seed < 4; ++seed)
        for (const problem& p : source.train(seed, 0, 6000)) REQUIRE(!different.contains(p.prompt));
    const auto fewer = source.held_out(100);
    for (std::size_t i = 0; i < fewer.size(); ++i) CHECK(fewer[i].prompt == held_out[i].prompt);
}

TEST_CASE("generated problems keep to their difficulty") {
    difficulty d;
    d.lengths = {0.25, 0.25, 0.25, 0.25};
    d.parentheses = 0.5;
    const generated source(d);
    std::vector<int> of_length(5);
    int with_parentheses = 0;
    const auto problems = source.train(1, 0, 4000);
    for (const problem& p : problems) {
        ++of_length[static_cast<std::size_t>(p.operations)];
        with_parentheses += p.prompt.find('(') != std::string::npos ? 1 : 0;
        CHECK(p.prompt.find('.') == std::string::npos);
        CHECK(static_cast<std::int64_t>(p.prompt.size()) <= source.longest_prompt());
        CHECK(static_cast<std::int64_t>(p.response.size()) + 1 <= source.longest_response());
        CHECK((p.value.den == 1 && p.value.num >= 0 && p.value.num <= d.largest_value));
    }
    // Within five standard deviations of the binomial shares.
    for (int n = 1; n <= 4; ++n) CHECK(std::abs(of_length[static_cast<std::size_t>(n)] - 1000) < 137);
    CHECK(std::abs(with_parentheses - 1500) < 153);
}

TEST_CASE("difficulties that cannot be are refused") {
    const auto refused = [](auto change) {
        difficulty d;
        change(d);
        return sentence([&] { generated(d).train(0, 0, 50); });
    };
    CHECK(refused([](difficulty& d) { d.largest_term = 0; }) == "difficulty: largest_term is 0, not from 1 to 200");
    CHECK(refused([](difficulty& d) { d.parentheses = 1.5; }) == "difficulty: parentheses is 1.5, not from 0 to 1");
    CHECK(refused([](difficulty& d) { d.lengths = {}; }).starts_with("difficulty: lengths are 0, 0, 0, 0"));
    CHECK(refused([](difficulty& d) { d.operations = {1, -1, 0, 0}; }).starts_with("difficulty: operations are 1, -1"));
    CHECK(refused([](difficulty& d) {
              d.lengths = {0, 0, 0, 1};
              d.operations = {0, 0, 0, 1};
              d.largest_factor = 2;
          }).find("no problem of 4 operations") != std::string::npos);
    difficulty easy;
    easy.lengths = {1, 0, 0, 0};
    easy.operations = {1, 0, 0, 0};
    easy.largest_term = 9;
    CHECK(sentence([&] { generated(easy).held_out(500); }).starts_with("held-out problems: 500 are asked for"));
}

TEST_CASE("consecutive annotations of a solution are combined") {
    const folder f;
    const auto train =
        f.write("train.jsonl", solved("She sold <<48/2=24>>24, together <<48+24=72>>72.\n#### 72") +
                                   solved("<<2+3=5>>, then <<5*4=20>>, then <<100-20=80>>, <<80/2=40>>") +
                                   solved("<<2+3=5>> and <<7*1=7>> and <<9-5=4>>"));
    const auto test = f.write("test.jsonl", solved("<<48+24=72>> <<72/8=9>>"));
    const gsm8k data(train, test);
    const std::set<std::string> expected{
        "48/2=",    "48+24=",       "48+48/2=", "2+3=",        "5*4=",         "(2+3)*4=", "100-20=",
        "100-5*4=", "100-(2+3)*4=", "80/2=",    "(100-20)/2=", "(100-5*4)/2=", "7*1=",     "9-5="};
    CHECK(data.train_count() == static_cast<std::int64_t>(expected.size()));
    CHECK(prompts(data.train(3, 0, data.train_count())) == expected);
    CHECK(prompts(data.held_out(2)) == std::set<std::string>{"72/8=", "(48+24)/8="});
    CHECK(data.counts().overlap == 1);
    CHECK(data.counts().duplicates == 1);
    CHECK(data.counts().combined == 7);  // six and (48+24)/8
    CHECK(data.counts().solutions == 4);
    CHECK(data.counts().annotations == 11);
    CHECK(data.counts().usable == 11);
}

TEST_CASE("every problem comes once before any comes again, in an order of the seed's") {
    const folder f;
    std::string lines;
    for (int i = 1; i <= 40; ++i) lines += solved(fmt::format("<<{}+1={}>>", i, i + 1).c_str());
    const gsm8k data(f.write("train.jsonl", lines), f.write("test.jsonl", solved("<<1*1=1>>")));
    const auto first = data.train(1, 0, 40);
    CHECK(prompts(first).size() == 40);
    CHECK(prompts(data.train(1, 40, 40)).size() == 40);
    CHECK(data.train(1, 40, 1)[0].prompt != first[0].prompt);
    CHECK(data.train(1, 17, 3)[2].prompt == first[19].prompt);
    const auto other = data.train(2, 0, 40);
    int same = 0;
    for (std::size_t i = 0; i < 40; ++i) same += other[i].prompt == first[i].prompt ? 1 : 0;
    CHECK(same < 10);
}

TEST_CASE("what annotations are left out for is counted") {
    const folder f;
    const auto train =
        f.write("train.jsonl",
                solved("<<1/3=0.33>> <<2+2=5>> <<x+1=2>> <<5>> <<3-7=-4>> <<1/8=0.125>> <<5=5>> <<99999+9=100008>> "
                       "<<1+1+1+1+1=5>> <<12.25+12.25+12.25=36.75>> <<4+5=9>> <<4+5=9=9>> <<1+2"));
    const auto test = f.write("test.jsonl", solved("<<50*20%=10>>"));
    const gsm8k data(train, test);
    const gsm8k_counts& c = data.counts();
    CHECK(c.annotations == 14);
    CHECK(c.inexact == 2);
    CHECK(c.unreadable == 4);  // x+1, 5, -4 has a sign, no end
    CHECK(c.refused[static_cast<std::size_t>(obstacle::decimals)] == 1);
    CHECK(c.refused[static_cast<std::size_t>(obstacle::no_operation)] == 1);
    CHECK(c.refused[static_cast<std::size_t>(obstacle::large)] == 1);
    CHECK(c.long_ones == 1);
    CHECK(c.duplicates == 1);
    CHECK(c.usable == 5);
    CHECK(prompts(data.train(0, 0, 2)) == std::set<std::string>{"4+5=", "12.25+12.25+12.25="});
    CHECK(data.held_out(1)[0].prompt == "50*0.2=");
    CHECK(c.text().find("14 annotations in 2 solutions: 5 usable, 4 unreadable, 2 inexact") == 0);
}

TEST_CASE("files that cannot be read are one sentence with path and line") {
    const folder f;
    const auto good = f.write("good.jsonl", solved("<<1+1=2>>"));
    const auto read = [&](const std::string& path) { return sentence([&] { gsm8k(path, good); }); };
    CHECK(read((f.path / "none.jsonl").string()).ends_with("none.jsonl: cannot be opened for reading"));
    CHECK(read(f.path.string()).ends_with(": is a directory, expected a file"));
    CHECK(read(f.write("a", solved("<<1+1=2>>") + "{\"question\": 1")).find("a:2: expected one JSON object") !=
          std::string::npos);
    CHECK(read(f.write("b", "[1]\n")).ends_with("b:1: expected one JSON object, got array"));
    CHECK(read(f.write("c", "\n{\"question\": \"?\"}\n"))
              .ends_with("c:2: expected \"answer\", a string, as GSM8K's files have it"));
    CHECK(read(f.write("d", solved("no annotation"))).find("no solution in it has an annotation") != std::string::npos);
    CHECK(read(f.write("e", "")).find("no solution in it has an annotation") != std::string::npos);
    CHECK(sentence([&] { gsm8k(good, good); }).find("every expression in it occurs in") != std::string::npos);
    CHECK(gsm8k::files(f.path.string()).second == (f.path / "test.jsonl").string());
    CHECK(gsm8k::files((f.path / "mine.jsonl").string()).first == (f.path / "mine.jsonl").string());
}
