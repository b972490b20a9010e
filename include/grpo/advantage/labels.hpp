// Groups by label: samples of one prompt need not lie side by side.
//
//   // The caller's buffers: offsets of count + 1, order of count.
//   const std::int64_t n = grpo::group_by_label(prompt_ids, offsets, order);
//   const auto groups = grpo::ragged(grpo::view(offsets.data(), n + 1));
//   grpo::gather(order, rewards, sorted);
//   grpo::group_normalised(groups, sorted, sorted_advantages);
//   grpo::scatter(order, sorted_advantages, advantages);
#pragma once

#include <cstdint>

#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

// By label, then by place: a strict order, so the result does not depend on the sorting method.
template <class L, class I>
bool label_before(const L* label, I a, I b) {
    return label[a] < label[b] || (!(label[b] < label[a]) && a < b);
}

// Lets order[at] sink to its place in the heap order[0, size).
template <class L, class I>
void sink(const L* label, I* order, std::int64_t at, std::int64_t size) {
    for (std::int64_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && label_before(label, order[child], order[child + 1])) ++child;
        if (!label_before(label, order[at], order[child])) return;
        const I moved = order[at];
        order[at] = order[child];
        order[child] = moved;
        at = child;
    }
}

}  // namespace detail

// Writes the groups' offsets (the first groups + 1 entries of a buffer of count + 1) and the order that lays equal
// labels side by side; returns the number of groups. Groups ascend by label, members keep their order. No memory is
// allocated: heap sort, O(n log n). Labels: anything with <.
template <class Label, class Offsets, class Order>
std::int64_t group_by_label(const Label& labels, Offsets&& offsets, Order&& order) {
    constexpr const char* function = "group_by_label";
    const view label(labels);
    const view cu(offsets);
    const view to(order);
    const std::int64_t n = label.size();
    detail::require(detail::null_pointer(function, "labels", label.data(), n));
    detail::require(detail::wants(function, "offsets", cu, n + 1, "samples (one offset more than those)"));
    detail::require(detail::wants(function, "order", to, n, "samples"));
    using I = detail::plain<decltype(to[0])>;
    using O = detail::plain<decltype(cu[0])>;
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<I>(i);
    for (std::int64_t i = n / 2; i-- > 0;) detail::sink(label.data(), to.data(), i, n);
    for (std::int64_t size = n - 1; size > 0; --size) {
        const I last = to[size];
        to[size] = to[0];
        to[0] = last;
        detail::sink(label.data(), to.data(), 0, size);
    }
    cu[0] = O(0);
    std::int64_t groups = 0;
    for (std::int64_t k = 0; k < n; ++k) {
        const bool closes = k + 1 == n || label[to[k]] < label[to[k + 1]];
        if (closes) cu[++groups] = static_cast<O>(k + 1);
    }
    return groups;
}

// out[k] = in[order[k]].
template <class Order, class In, class Out>
void gather(const Order& order, const In& in, Out&& out) {
    const view at(order);
    const view from(in);
    const view to(out);
    detail::require(detail::wants("gather", "in", from, at.size(), "samples"));
    detail::require(detail::wants("gather", "out", to, at.size(), "samples"));
    for (std::int64_t k = 0; k < at.size(); ++k) to[k] = from[static_cast<std::int64_t>(at[k])];
}

// out[order[k]] = in[k].
template <class Order, class In, class Out>
void scatter(const Order& order, const In& in, Out&& out) {
    const view at(order);
    const view from(in);
    const view to(out);
    detail::require(detail::wants("scatter", "in", from, at.size(), "samples"));
    detail::require(detail::wants("scatter", "out", to, at.size(), "samples"));
    for (std::int64_t k = 0; k < at.size(); ++k) to[static_cast<std::int64_t>(at[k])] = from[k];
}

}  // namespace grpo::inline v0
