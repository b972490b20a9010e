// How a mistake is reported: grpo::error where there are exceptions, else the handler, else the end of the program.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

namespace {

const std::vector<float> two{-1.0f, -2.0f}, three{-1.0f, -2.0f, -3.0f};

// A call whose logp_old is too long.
void mistake() {
    std::vector<float> gradient(2, 77.0f);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(two), grpo::logp_old(three), grpo::advantage(two));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_logp(gradient));
}

const std::string expected = "grpo::evaluate: logp_old has 3 entries, but the batch has 2 positions";

}  // namespace

#if defined(__cpp_exceptions)

namespace {

TEST_CASE("with exceptions a mistake is a grpo::error with the sentence") {
    std::string sentence;
    try {
        mistake();
    } catch (const std::exception& e) {
        sentence = e.what();
    }
    CHECK(sentence == expected);
}

}  // namespace

#else

namespace {

std::jmp_buf back;
char seen[400];
bool returns = false;

}  // namespace

// The hook a program defines.
extern "C" void grpo_error_handler(const char* sentence) {
    std::snprintf(seen, sizeof seen, "%s", sentence);
    if (!returns) std::longjmp(back, 1);
}

namespace {

// Allocates nothing that a jump out of it would lose.
void mistake_without_memory() {
    const float logp[2] = {-1, -2}, old[3] = {-1, -2, -3};
    float gradient[2] = {77, 77};
    const grpo::view<const float> x(logp), y(old);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(y), grpo::advantage(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_logp(gradient));
}

TEST_CASE("without exceptions the handler receives the sentence") {
    seen[0] = '\0';
    returns = false;
    if (setjmp(back) == 0) mistake_without_memory();
    CHECK(std::string(seen) == expected);
}

TEST_CASE("a handler that returns does not let the program go on") {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        returns = true;
        std::freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        mistake();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGABRT);
}

}  // namespace

#endif

namespace {

TEST_CASE("a returned problem needs no exceptions, and nothing is written") {
    std::vector<float> gradient(2, 77.0f);
    grpo::loss_result total;
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(two), grpo::logp_old(three), grpo::advantage(two));
    const grpo::problem p = grpo::try_accumulate(total, grpo::serial{},
                                                 grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                                                 grpo::d_logp(gradient));
    CHECK(p);
    CHECK(std::string(p.text) == expected);
    CHECK(gradient == std::vector<float>(2, 77.0f));
    CHECK(total.count.sequences == 0);
}

TEST_CASE("a sentence longer than its place is cut, not overrun") {
    const std::string name(500, 'x');
    const grpo::problem p = grpo::detail::complain("f", name.c_str(), "is %g", 1.0);
    CHECK(std::string(p.text).size() < sizeof p.text);
}

}  // namespace
