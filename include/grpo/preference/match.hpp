// AOT (arXiv 2406.05882): comparing the distribution of preferences, not pair by pair, by sorting the batch. Sorting gives
// a partner per pair; after that AOT is an ordinary pair term. Ties go to the lower index, so results are repeatable.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/order.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

// Four arrays of the same n, a result of n and a workspace of 2n.
template <class A, class B, class C, class D, class Out>
problem check_match(const char* function, const A& a, const B& b, const C& c, const D& d, const char* out_name,
                    const Out& out, view<std::int64_t> work) {
    const std::int64_t n = a.size();
    return first_of(wrong_size(function, "rejected", b.size(), n, "pairs"),
                    wrong_size(function, "ref_chosen", c.size(), n, "pairs"),
                    wrong_size(function, "ref_rejected", d.size(), n, "pairs"),
                    wrong_size(function, out_name, out.size(), n, "pairs"),
                    wrong_size(function, "work", work.size(), 2 * n, "entries to sort (two per pair)"));
}

}  // namespace detail

// AOT paired: out[i] = the reference's margin ref_chosen - ref_rejected that has the rank among the reference's margins
// that pair i's chosen - rejected has among the policy's. Give it as margin(out) to the term `aot`.
// work: 2 · pairs entries.
template <class A, class B, class C, class D, class Out>
void aot_match(const A& chosen, const B& rejected, const C& ref_chosen, const D& ref_rejected, view<std::int64_t> work,
               Out&& out) {
    const view w(chosen);
    const view l(rejected);
    const view rw(ref_chosen);
    const view rl(ref_rejected);
    const view m(out);
    detail::require(detail::check_match("aot_match", w, l, rw, rl, "out", m, work));
    using T = std::remove_reference_t<decltype(m[0])>;
    const std::int64_t n = w.size();
    const auto policy = [&](std::int64_t i) { return static_cast<double>(w[i]) - static_cast<double>(l[i]); };
    const auto reference = [&](std::int64_t i) { return static_cast<double>(rw[i]) - static_cast<double>(rl[i]); };
    std::int64_t* const by_policy = work.data();
    std::int64_t* const by_reference = work.data() + n;
    detail::sort_indices(by_policy, n, policy);
    detail::sort_indices(by_reference, n, reference);
    for (std::int64_t k = 0; k < n; ++k) m[by_policy[k]] = static_cast<T>(reference(by_reference[k]));
}

// AOT unpaired: partner[i] = the pair whose rejected log-ratio has the rank among the rejected that pair i's chosen
// log-ratio has among the chosen. gather() rejected and ref_rejected by it, use the term `cdpo`, and scatter() d_rejected.
// work: 2 · pairs entries.
template <class A, class B, class C, class D>
void aot_unpaired_match(const A& chosen, const B& rejected, const C& ref_chosen, const D& ref_rejected,
                        view<std::int64_t> work, view<std::int64_t> partner) {
    const view w(chosen);
    const view l(rejected);
    const view rw(ref_chosen);
    const view rl(ref_rejected);
    detail::require(detail::check_match("aot_unpaired_match", w, l, rw, rl, "partner", partner, work));
    const std::int64_t n = w.size();
    std::int64_t* const by_chosen = work.data();
    std::int64_t* const by_rejected = work.data() + n;
    detail::sort_indices(by_chosen, n,
                         [&](std::int64_t i) { return static_cast<double>(w[i]) - static_cast<double>(rw[i]); });
    detail::sort_indices(by_rejected, n,
                         [&](std::int64_t i) { return static_cast<double>(l[i]) - static_cast<double>(rl[i]); });
    for (std::int64_t k = 0; k < n; ++k) partner[by_chosen[k]] = by_rejected[k];
}

}  // namespace grpo::inline v0
