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
