// Rows on several threads: threads<serial> or threads<simd>.
//
// Level: each row is walked by one thread exactly as Inner walks it, and rows are added up in their order afterwards, so
// every result has the same bits as Inner's for any number of threads. No OpenMP, no global state.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>

namespace grpo::inline v0 {

// A fixed set of threads. run(f) calls f(k) for k = 0 .. size() - 1, k = 0 on the calling thread, and returns when all
// are done. One run at a time. A worker polls for some microseconds before it sleeps.
class thread_pool {
public:
    explicit thread_pool(int threads) {
        detail::require(detail::below("thread_pool", "threads", threads, 1));
        for (int k = 1; k < threads; ++k) workers_.emplace_back([this, k] { work(k); });
    }
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool() {
        stop_ = true;
        publish();
        for (std::thread& worker : workers_) worker.join();
    }

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    template <class F>
    void run(F&& f) {
        call_ = [](void* job, int k) { (*static_cast<std::remove_reference_t<F>*>(job))(k); };
        job_ = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
        pending_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
        publish();
        f(0);
        while (pending_.load(std::memory_order_acquire) != 0) pause();
    }

private:
    void publish() {
        {
            const std::lock_guard lock(mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
    }

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#else
        std::this_thread::yield();
#endif
    }

    void work(int k) {
        constexpr int polls = 4000;
        std::uint64_t seen = 0;
        for (;;) {
            for (int i = 0; i < polls && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            ++seen;
            if (stop_) return;
            call_(job_, k);
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> generation_{0};
    std::atomic<int> pending_{0};
    void (*call_)(void*, int) = nullptr;
    void* job_ = nullptr;
    bool stop_ = false;
};

// Inner: who walks a row (serial, simd). Pool: anything with size() and run(f) as thread_pool has, owned or borrowed.
// An object serves one call at a time. fold() keeps one result per row in memory that the object owns and reuses; it
// grows only when a call brings more rows than any before.
template <class Inner = serial, class Pool = thread_pool>
class threads {
public:
    using team = typename Inner::team;

    explicit threads(int count) : owned_(std::make_unique<Pool>(count)), pool_(owned_.get()) {}
    explicit threads(Pool& borrowed) : pool_(&borrowed) {}

    int size() const { return pool_->size(); }

    // body(team, row) for every row, in any order.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        std::atomic<std::int64_t> next{0};
        const std::int64_t piece = pieces(rows);
        const auto take = [&](int worker) {
            team walker;
            walker.worker = worker;
            for (;;) {
                const std::int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
                if (first >= rows) return;
                const std::int64_t last = rows - first < piece ? rows : first + piece;
                for (std::int64_t row = first; row < last; ++row) body(walker, row);
            }
        };
        if (rows <= piece) {
            take(0);
        } else {
            pool_->run(take);
        }
    }

    // add(total, body(team, row)) in the order of the rows.
    template <class Total, class Body, class Add>
    void fold(std::int64_t rows, Total& total, const Body& body, Add&& add) const {
        using result = decltype(body(std::declval<team&>(), std::int64_t{}));
        static_assert(std::is_trivially_copyable_v<result> && alignof(result) <= alignof(std::max_align_t));
        const std::size_t bytes = static_cast<std::size_t>(rows) * sizeof(result);
        if (scratch_.size() < bytes) scratch_.resize(bytes);
        result* const results = reinterpret_cast<result*>(scratch_.data());
        teams(rows, [&](team& walker, std::int64_t row) { ::new (static_cast<void*>(results + row)) result(body(walker, row)); });
        for (std::int64_t row = 0; row < rows; ++row) add(total, results[row]);
    }

private:
    // Small enough to balance rows of unequal length, large enough not to fight over the counter.
    std::int64_t pieces(std::int64_t rows) const {
        const std::int64_t n = rows / (std::int64_t{32} * size());
        return n < 1 ? 1 : n;
    }

    std::unique_ptr<Pool> owned_;
    Pool* pool_;
    mutable std::vector<std::byte> scratch_;
};

}  // namespace grpo::inline v0
