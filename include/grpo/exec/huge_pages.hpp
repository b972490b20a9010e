// Memory on huge pages, for logits and whatever else is read from end to end: fewer page walks where the memory is the limit.
//
//   std::vector<float, grpo::huge_page_allocator<float>> logits(rows * vocabulary);
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <grpo/detail/config.hpp>

namespace grpo::inline v0 {

// A standard allocator that asks the system for huge pages (Linux: madvise, which `always` and `madvise` of
// /sys/kernel/mm/transparent_hugepage/enabled grant) from 2 MiB on. Where there are none the memory is ordinary. Aligned to
// 2 MiB, or to a cache line below that size. Throws std::bad_alloc; without exceptions the program ends.
template <class T>
struct huge_page_allocator {
    using value_type = T;

    huge_page_allocator() = default;
    template <class U>
    huge_page_allocator(const huge_page_allocator<U>&) {}

    T* allocate(std::size_t n) {
        constexpr std::size_t page = std::size_t{2} << 20;
        if (n > static_cast<std::size_t>(-1) / 2 / sizeof(T)) fail();
        const std::size_t wanted = n * sizeof(T);
        const std::size_t unit = wanted < page ? 64 : page;
        const std::size_t bytes = (wanted + unit - 1) / unit * unit;
        void* const p = std::aligned_alloc(unit, bytes == 0 ? unit : bytes);
        if (p == nullptr) fail();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (unit == page) (void)madvise(p, bytes, MADV_HUGEPAGE);
#endif
        return static_cast<T*>(p);
    }
    void deallocate(T* p, std::size_t) noexcept { std::free(p); }

    friend bool operator==(const huge_page_allocator&, const huge_page_allocator&) { return true; }

private:
    [[noreturn]] static void fail() {
#if defined(__cpp_exceptions)
        throw std::bad_alloc();
#else
        std::abort();
#endif
    }
};

}  // namespace grpo::inline v0
