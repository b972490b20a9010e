// The allocator that asks for huge pages: ordinary memory to its users, aligned as it says.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include <grpo/exec/huge_pages.hpp>

namespace {
template <class T>
std::uintptr_t address_of(const std::vector<T, grpo::huge_page_allocator<T>>& v) {
    return reinterpret_cast<std::uintptr_t>(v.data());
}
}  // namespace

TEST_CASE("small blocks lie on cache lines, large ones on huge pages; both hold what was written") {
    for (const std::size_t n : {std::size_t{1}, std::size_t{1000}, std::size_t{524287}, std::size_t{524288}, std::size_t{1500001}}) {
        INFO(n);
        std::vector<float, grpo::huge_page_allocator<float>> v(n);
        CHECK(address_of(v) % (n * sizeof(float) < (std::size_t{2} << 20) ? 64 : (std::size_t{2} << 20)) == 0);
        v.front() = 1.0f;
        v.back() = 2.0f;
        v.push_back(3.0f);
        CHECK(v[n - 1] == 2.0f);
        CHECK(v[n] == 3.0f);
        CHECK(v[n / 2] == (n == 1 ? 2.0f : 0.0f));
    }
    std::vector<double, grpo::huge_page_allocator<double>> none;
    CHECK(none.empty());
}

TEST_CASE("any of them frees what another gave; more than there can be is std::bad_alloc") {
    const grpo::huge_page_allocator<float> one;
    const grpo::huge_page_allocator<double> other(one);
    CHECK(one == grpo::huge_page_allocator<float>(other));
    CHECK_THROWS_AS((void)grpo::huge_page_allocator<double>().allocate(std::numeric_limits<std::size_t>::max() / 4), std::bad_alloc);
}
