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
#include <grpo/order.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

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
    using O = detail::plain<decltype(cu[0])>;
    detail::sort_indices(to.data(), n, [&](std::int64_t i) { return label[i]; });
    cu[0] = O(0);
    std::int64_t groups = 0;
    for (std::int64_t k = 0; k < n; ++k) {
        const bool closes = k + 1 == n || label[to[k]] < label[to[k + 1]];
        if (closes) cu[++groups] = static_cast<O>(k + 1);
    }
    return groups;
}

}  // namespace grpo::inline v0
