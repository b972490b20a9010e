// Views, shapes, masks and counts.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/shape.hpp>

namespace {

std::string text(const grpo::problem& p) { return p.text; }
bool has(const std::string& whole, const char* part) { return whole.find(part) != std::string::npos; }

TEST_CASE("a view is made from whatever has data() and size(), and of arrays") {
    std::vector<float> v{1, 2, 3};
    const std::vector<float> c{1, 2};
    std::array<int, 4> a{};
    double raw[5] = {};
    CHECK(grpo::view(v).size() == 3);
    CHECK(grpo::view(v).data() == v.data());
    CHECK(grpo::view(a).size() == 4);
    CHECK(grpo::view(raw).size() == 5);
    CHECK(grpo::view(raw, 2).size() == 2);
    static_assert(std::is_same_v<decltype(grpo::view(v)), grpo::view<float>>);
    static_assert(std::is_same_v<decltype(grpo::view(c)), grpo::view<const float>>);
    const grpo::view<const float> readable = grpo::view(v);
    CHECK(readable[2] == 3);
    static_assert(!std::is_convertible_v<grpo::view<const float>, grpo::view<float>>);
    static_assert(!std::is_constructible_v<grpo::view<float>, std::vector<double>&>);
    CHECK(grpo::view<int>().empty());
}

TEST_CASE("ragged: rows by offsets, of any integer type, empty rows included") {
    const std::vector<std::int32_t> narrow{0, 3, 3, 7};
    const std::vector<std::int64_t> wide{0, 3, 3, 7};
    const grpo::ragged a(narrow);
    const grpo::ragged b(wide);
    for (std::int64_t s = 0; s < 3; ++s) {
        CHECK(a.begin(s) == b.begin(s));
        CHECK(a.end(s) == b.end(s));
    }
    CHECK(a.rows() == 3);
    CHECK(a.extent() == 7);
    CHECK(a.begin(1) == a.end(1));
    CHECK(a.count_active(2) == 4);
    CHECK(text(a.validate("f")) == "");
}

TEST_CASE("R1.18 no rows: offsets {0}, or none at all") {
    const std::vector<std::int64_t> zero{0}, none;
    CHECK(grpo::ragged(zero).rows() == 0);
    CHECK(grpo::ragged(zero).extent() == 0);
    CHECK(grpo::ragged(none).rows() == 0);
    CHECK(grpo::ragged(none).extent() == 0);
    CHECK(text(grpo::ragged(none).validate("f")) == "");
    CHECK(grpo::padded(0, 5).extent() == 0);
    CHECK(grpo::count(grpo::ragged(zero)).sequences == 0);
}

TEST_CASE("padded: width, stride, and what must be in memory") {
    const grpo::padded plain(3, 4), strided(3, 4, 6), one(1, 4, 2);
    CHECK(plain.extent() == 12);
    CHECK(strided.extent() == 16);
    CHECK(strided.begin(2) == 12);
    CHECK(strided.end(2) == 16);
    CHECK(text(plain.validate("f")) == "");
    CHECK(text(strided.validate("f")) == "");
    // One row never uses its stride.
    CHECK(text(one.validate("f")) == "");
    CHECK(has(text(grpo::padded(2, 4, 3).validate("f")), "grpo::f: stride is 3"));
    CHECK(has(text(grpo::padded(-2, 4).validate("f")), "rows is -2"));
    CHECK(has(text(grpo::padded(2, -4).validate("f")), "width is -4"));
}

TEST_CASE("offsets that do not start at 0 or fall are named") {
    const std::vector<std::int64_t> late{1, 3}, falling{0, 5, 2};
    CHECK(has(text(grpo::ragged(late).validate("f")), "cu_seqlens starts at 1"));
    CHECK(has(text(grpo::ragged(falling).validate("f")), "cu_seqlens falls from 5 to 2 at row 1"));
    const grpo::view<const std::int64_t> null(nullptr, 3);
    CHECK(has(text(grpo::ragged(null).validate("f")), "cu_seqlens is a null pointer"));
}

TEST_CASE("R1.14 a mask with holes: not 0 counts, of any type") {
    const std::vector<std::int64_t> cu{0, 4, 4, 6};
    const std::vector<std::uint8_t> bytes{1, 0, 255, 0, 0, 2};
    const std::vector<float> floats{1, 0, -0.5f, -0.0f, 0, 1e-30f};
    const auto by_byte = grpo::ragged(cu).where(bytes);
    const auto by_float = grpo::ragged(cu).where(floats);
    for (std::int64_t i = 0; i < 6; ++i) {
        const bool expected = i == 0 || i == 2 || i == 5;
        CHECK(by_byte.active(grpo::cursor<float>{i}) == expected);
        CHECK(by_float.active(grpo::cursor<double>{i}) == expected);
    }
    CHECK(by_byte.count_active(0) == 2);
    CHECK(by_byte.count_active(1) == 0);
    CHECK(by_byte.count_active(2) == 1);
    const grpo::totals t = grpo::count(by_float);
    CHECK(t.sequences == 3);
    CHECK(t.nonempty == 2);
    CHECK(t.tokens == 3);
    const std::vector<std::uint8_t> few{1, 0};
    CHECK(has(text(grpo::ragged(cu).where(few).validate("f")), "mask has 2 entries, but the batch has 6 positions"));
}

TEST_CASE("byte masks are counted right at every length, offset and value") {
    std::vector<std::uint8_t> mask;
    for (int i = 0; i < 64; ++i) mask.push_back(static_cast<std::uint8_t>(i % 3 == 0 ? 0 : (i * 37) % 256));
    for (std::int64_t first = 0; first < 9; ++first) {
        for (std::int64_t last = first; last <= 64; ++last) {
            const std::vector<std::int64_t> cu{0, first, last};
            std::int64_t expected = 0;
            for (std::int64_t i = first; i < last; ++i) expected += mask[static_cast<std::size_t>(i)] != 0 ? 1 : 0;
            CHECK(grpo::ragged(cu).where(mask).count_active(1) == expected);
        }
    }
    const std::vector<std::uint8_t> high(19, 0x80), low(19, 1);
    CHECK(grpo::padded(1, 19).where(high).count_active(0) == 19);
    CHECK(grpo::padded(1, 19).where(low).count_active(0) == 19);
}

TEST_CASE("R1.27 counts of parts add up to the counts of the whole") {
    const std::vector<std::int64_t> whole{0, 2, 2, 5, 9}, left{0, 2, 2}, right{0, 3, 7};
    const grpo::totals a = grpo::count(grpo::ragged(left)) + grpo::count(grpo::ragged(right));
    const grpo::totals b = grpo::count(grpo::ragged(whole));
    CHECK(a.tokens == b.tokens);
    CHECK(a.sequences == b.sequences);
    CHECK(a.nonempty == b.nonempty);
}

TEST_CASE("R1.39 positions beyond 2^31") {
    const grpo::padded large(3, 10, std::int64_t{1} << 32);
    CHECK(large.begin(2) == std::int64_t{1} << 33);
    CHECK(large.extent() == (std::int64_t{1} << 33) + 10);
    const std::vector<std::int64_t> cu{0, std::int64_t{5} << 31, std::int64_t{6} << 31};
    CHECK(grpo::count(grpo::ragged(cu)).tokens == std::int64_t{6} << 31);
}

}  // namespace
