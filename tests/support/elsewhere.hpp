// elsewhere<N>: lanes<N> as if its memory were not the host's: entry points then take the path of a device, which this
// machine can run. Totals lie in memory of the executor, valid until its next fold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/shape.hpp>

#include <support/lanes.hpp>

template <int N>
class elsewhere : public lanes<N> {
public:
    static constexpr bool host_memory = false;

    // Rows of logits by teams on packs, in two ranges, as a device's teams have one each.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        if constexpr (requires { Body::long_rows; }) {
            using on_packs = lanes_team<N, 8>;
            this->template in_block<on_packs>([&](on_packs& walker) {
                const std::int64_t all = body.from.in.rows;
                if constexpr (requires { body.range(walker, all, all); }) {
                    body.range(walker, 0, all / 3);
                    body.range(walker, all / 3, all);
                } else {
                    for (std::int64_t row = 0; row < rows; ++row) body(walker, row);
                }
            });
        } else {
            lanes<N>::teams(rows, body);
        }
    }
    template <class Total, class Body, class Add>
    const Total* fold(std::int64_t rows, const Body& body, const Add& add) const {
        static_assert(std::is_trivially_copyable_v<Total> && sizeof(Total) <= size_of_memory);
        // As on a device: consecutive rows are added up by themselves, then merged.
        struct {
            Total early{};
            Total late{};
            std::int64_t seen = 0;
        } parts;
        lanes<N>::fold(rows, parts, body, [&](auto& to, const auto& row) {
            add(to.seen < rows / 2 ? to.early : to.late, row);
            ++to.seen;
        });
        add.merge(parts.early, parts.late);
        return ::new (static_cast<void*>(memory_->bytes)) Total(parts.early);
    }
    grpo::problem reach(const char* function, const char* argument, const void* p) const {
        if (p != forbidden) return {};
        return grpo::detail::complain(function, argument, "points into host memory, but device %d is to read or write it", 0);
    }

    const void* forbidden = nullptr;

private:
    static constexpr std::size_t size_of_memory = 960;
    struct memory {
        alignas(16) unsigned char bytes[size_of_memory];
    };
    std::shared_ptr<memory> memory_ = std::make_shared<memory>();
};
