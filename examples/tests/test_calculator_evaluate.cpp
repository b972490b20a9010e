// Evaluation of a sampler whose answers are known.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "calculator/evaluate.hpp"
#include "calculator/evaluate_json.hpp"

using namespace calculator;

namespace {

problem posed(const char* text) {
    return pose(parse(text).value()).value();
}

const std::vector<problem> problems{posed("1+2"), posed("2*3+4"), posed("9-5")};

// Four samples each: the first problem is answered 3 3 4 and not at all, the second 10 twice and 11 twice, the third
// always wrongly, with 5 5 6 7.
const std::map<std::string, std::vector<const char*>> samples{
    {"1+2=", {"3", "3", "4", "("}}, {"2*3+4=", {"11", "6+4=10", "11", "10"}}, {"9-5=", {"5", "5", "6", "7"}}};
const std::map<std::string, const char*> greedy_samples{{"1+2=", "3"}, {"2*3+4=", "6+4=11"}, {"9-5=", ""}};

std::vector<std::vector<token>> scripted(std::span<const problem> asked, int count, bool greedy) {
    std::vector<std::vector<token>> responses;
    for (const problem& p : asked) {
        for (int i = 0; i < count; ++i) {
            const char* text = greedy ? greedy_samples.at(p.prompt) : samples.at(p.prompt)[static_cast<std::size_t>(i)];
            responses.push_back(vocabulary::encode(text, *text != '\0'));
        }
    }
    return responses;
}

evaluation evaluated(std::size_t batch) {
    evaluation_options options;
    options.samples = 4;
    options.ks = {1, 2, 4};
    options.batch = batch;
    return evaluate(problems, scripted, options);
}

void equal(const std::vector<double>& x, const std::vector<double>& y) {
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == doctest::Approx(y[i]));
}

std::string one_spaced(const std::string& text) {
    std::string out;
    for (const char c : text)
        if (c != ' ' || !out.ends_with(' ')) out += c;
    return out;
}

}  // namespace

TEST_CASE("each number by counting subsets") {
    for (const std::size_t batch : std::vector<std::size_t>{1, 2, 3, 100}) {
        const evaluation e = evaluated(batch);
        equal(e.greedy, {1, 0, 0});
        equal(e.steps, {1, 0.5, 0});
        equal(e.lengths, {2, 7, 0});
        equal(e.ended, {1, 1, 0});
        equal(e.pass.at(1), {2.0 / 4, 2.0 / 4, 0});
        // Pairs of four without a right answer: 1 of 6, 1 of 6, 6 of 6.
        equal(e.pass.at(2), {5.0 / 6, 5.0 / 6, 0});
        equal(e.pass.at(4), {1, 1, 0});
        equal(e.maj.at(1), {2.0 / 4, 2.0 / 4, 0});
        // Of two the first vote decides unless both agree: 33, 34, 3(, 34, 3( are right of 33 34 3( 34 3( 4(; of the
        // second problem 11,10 11,11 11,10 10,11 10,10 11,10 only those that begin with 10.
        equal(e.maj.at(2), {5.0 / 6, 2.0 / 6, 0});
        equal(e.maj.at(4), {1, 0, 0});
    }
}

TEST_CASE("responses without an answer do not vote together") {
    const std::vector<problem> one{posed("1+2")};
    evaluation_options options;
    options.samples = 4;
    options.ks = {4};
    const auto lost = [](std::span<const problem>, int count, bool) {
        std::vector<std::vector<token>> responses(static_cast<std::size_t>(count), vocabulary::encode("("));
        responses.back() = vocabulary::encode("3", true);
        responses[responses.size() / 2] = vocabulary::encode("3", true);
        return responses;
    };
    CHECK(evaluate(one, lost, options).maj.at(4)[0] == 1.0);
}

TEST_CASE("the table names before, after and the difference") {
    evaluation before = evaluated(3);
    evaluation after = before;
    after.greedy = {1, 1, 0};
    const std::string text = one_spaced(comparison_table(before, after, "SFT", "GRPO"));
    CHECK(text.find("3 problems") != std::string::npos);
    CHECK(text.find("greedy accuracy 33.3 6.1 to 79.2 66.7 20.8 to 93.9 +33.3 -32.0 to +98.7") != std::string::npos);
    CHECK(text.find("maj@4") != std::string::npos);
    CHECK(text.find("maj@1 ") == std::string::npos);
    CHECK(text.find("response length 3.0") != std::string::npos);

    const auto json = comparison_json(before, after);
    CHECK(json.at("problems") == 3);
    CHECK(json.at("before").at("greedy accuracy").at("mean") == doctest::Approx(1.0 / 3));
    CHECK(json.at("after").at("greedy accuracy").at("high") == doctest::Approx(0.939).epsilon(0.001));
    CHECK(json.at("difference").at("greedy accuracy").at("low") == doctest::Approx(-0.320).epsilon(0.001));
    CHECK(json.at("after").at("maj@4").at("mean") == doctest::Approx(1.0 / 3));
    CHECK(json.at("before").at("response length").at("mean") == doctest::Approx(3.0));
}

TEST_CASE("options and samplers that do not fit are refused") {
    evaluation_options options;
    options.samples = 4;
    options.ks = {8};
    CHECK_THROWS_WITH_AS(evaluate(problems, scripted, options),
                         "evaluate: k is 8, but there are 4 samples of each problem", support::bad_input);
    options.ks = {4};
    const auto short_one = [](std::span<const problem>, int, bool) { return std::vector<std::vector<token>>(2); };
    CHECK_THROWS_WITH_AS(evaluate(problems, short_one, options),
                         "evaluate: 2 responses came from the sampler for 3 problems and 1 samples", std::logic_error);
}
