// Orders: a list of indices, and entries laid out by it. One sort for every room that needs one: in place, no allocation.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

// Writes 0 .. n-1 so that keys ascend, equal keys by index: a strict order, so the result does not depend on the method.
// Heapsort: in place, O(n log n) at worst. key(i): anything with <.
template <class I, class Key>
void sort_indices(I* order, std::int64_t n, const Key& key) {
    const auto before = [&](I a, I b) {
        const auto x = key(static_cast<std::int64_t>(a));
        const auto y = key(static_cast<std::int64_t>(b));
        return x < y || (!(y < x) && a < b);
    };
    const auto swap = [&](std::int64_t i, std::int64_t j) {
        const I moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    };
    const auto sift = [&](std::int64_t root, std::int64_t size) {
        for (std::int64_t child = 2 * root + 1; child < size; child = 2 * root + 1) {
            if (child + 1 < size && before(order[child], order[child + 1])) ++child;
            if (!before(order[root], order[child])) return;
            swap(root, child);
            root = child;
        }
    };
    for (std::int64_t i = 0; i < n; ++i) order[i] = static_cast<I>(i);
    for (std::int64_t i = n / 2; i-- > 0;) sift(i, n);
    for (std::int64_t size = n; size-- > 1;) {
        swap(0, size);
        sift(0, size);
    }
}

// Sizes, and that every index lies inside.
template <class Order, class In, class Out>
void check_ordered(const char* function, const Order& order, const In& in, const Out& out) {
    require(first_of(wrong_size(function, "in", in.size(), order.size(), "entries in the order"),
                     wrong_size(function, "out", out.size(), order.size(), "entries in the order")));
    for (std::int64_t i = 0; i < order.size(); ++i) {
        const auto at = static_cast<std::int64_t>(order[i]);
        if (at >= 0 && at < in.size()) continue;
        raise(complain(function, "order", "holds %lld, but there are %lld entries", static_cast<long long>(at),
                       static_cast<long long>(in.size())));
    }
}

}  // namespace detail

// out[k] = in[order[k]]; out is not in.
template <class Order, class In, class Out>
void gather(const Order& order, const In& in, Out&& out) {
    const view at(order);
    const view from(in);
    const view to(out);
    detail::check_ordered("gather", at, from, to);
    for (std::int64_t k = 0; k < at.size(); ++k) to[k] = from[static_cast<std::int64_t>(at[k])];
}

// out[order[k]] = in[k]; out is not in. Undoes gather.
template <class Order, class In, class Out>
void scatter(const Order& order, const In& in, Out&& out) {
    const view at(order);
    const view from(in);
    const view to(out);
    detail::check_ordered("scatter", at, from, to);
    for (std::int64_t k = 0; k < at.size(); ++k) to[static_cast<std::int64_t>(at[k])] = from[k];
}

}  // namespace grpo::inline v0
