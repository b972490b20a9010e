// Matrix products as a policy: who multiplies when a head goes from hidden states to logits and back.
//
//   policy.multiply(m, n, k, a, b, beta, c, stride_c);      // c[m,n] = beta c + a[m,k] b[k,n]
//   policy.multiply(n, v, h, grpo::operand{hidden, h}, grpo::operand{weight, h, true}, 0.0f, logits, v);
//
// `plain_gemm` needs nothing but a compiler. Others: eigen_gemm, blas_gemm and onednn_gemm in grpo/adapt/gemm/.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0 {

// A row-major matrix as an operand: entry (i, j) is data[i * stride + j], or data[j * stride + i] if `transposed` (the
// operand is then the transpose of what lies in memory). Memory rows do not overlap: stride >= their length.
template <class T>
struct operand {
    const T* data;
    std::int64_t stride;
    bool transposed = false;
};
template <class T>
operand(const T*, std::int64_t, bool = false) -> operand<T>;

// What beta is given in: float where c is of 16 bits.
template <class C>
using gemm_scale = std::conditional_t<sizeof(C) == 2, float, C>;

// A policy that multiplies A by B into C: c[m,n] = beta c + a[m,k] b[k,n], row i of c at c + i stride_c. With beta 0 c
// is written without being read (it may hold NaN), also where k is 0. c overlaps neither operand. multiply() is const,
// and may be called from several threads at once, each with a c of its own.
template <class G, class A, class B, class C>
concept multiplies = requires(const G& policy, std::int64_t size, operand<A> a, operand<B> b, gemm_scale<C> beta, C* c) {
    policy.multiply(size, size, size, a, b, beta, c, size);
};

namespace detail {

inline problem check_extent(const char* function, const char* argument, std::int64_t size) {
    if (size >= 0) return {};
    return complain(function, argument, "is %lld, but must be at least %lld", static_cast<long long>(size), 0LL);
}

// A matrix of rows × columns as it lies in memory.
inline problem check_memory(const char* function, const char* argument, std::int64_t rows, std::int64_t columns,
                            const void* data, std::int64_t stride) {
    if (rows > 1 && stride < columns) {
        return complain(function, argument, "has stride %lld, but its rows have %lld entries",
                        static_cast<long long>(stride), static_cast<long long>(columns));
    }
    return rows > 0 ? null_pointer(function, argument, data, columns) : problem{};
}

template <class T>
problem check_operand(const char* function, const char* argument, std::int64_t rows, std::int64_t columns,
                      const operand<T>& x) {
    return x.transposed ? check_memory(function, argument, columns, rows, x.data, x.stride)
                        : check_memory(function, argument, rows, columns, x.data, x.stride);
}

// What every policy asks of its arguments, in O(1).
template <class A, class B, class C>
problem check_product(const char* function, std::int64_t m, std::int64_t n, std::int64_t k, const operand<A>& a,
                      const operand<B>& b, const C* c, std::int64_t stride_c) {
    if (const problem p =
            first_of(check_extent(function, "m", m), check_extent(function, "n", n), check_extent(function, "k", k))) {
        return p;
    }
    return first_of(check_operand(function, "a", m, k, a), check_operand(function, "b", k, n, b),
                    check_memory(function, "c", m, n, c, stride_c));
}

template <class T>
concept gemm_storage =
    std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16> || std::same_as<T, float16>;
template <class T>
concept gemm_compute = std::same_as<T, float> || std::same_as<T, double>;

// Products of 6 rows by two vectors stay in registers: 12 sums, with 16 registers or more. Vectors are the compiler's
// own, of the width that is compiled for, since loops over arrays leave registers with some compilers.
template <class C>
struct gemm_tile {
#if defined(__AVX512F__)
    static constexpr int bytes = 64;
#elif defined(__AVX__)
    static constexpr int bytes = 32;
#else
    static constexpr int bytes = 16;
#endif
    typedef C vector __attribute__((vector_size(bytes)));
    static constexpr int lanes = bytes / static_cast<int>(sizeof(C));
    static constexpr int rows = 6;
    static constexpr int columns = 2 * lanes;

    C sum[rows * columns];

    // a: depth × rows, b: depth × columns, both without gaps.
    void multiply(std::int64_t depth, const C* a, const C* b) {
        vector total[rows][2] = {};
        for (std::int64_t p = 0; p < depth; ++p, a += rows, b += columns) {
            vector left, right;
            __builtin_memcpy(&left, b, bytes);
            __builtin_memcpy(&right, b + lanes, bytes);
            for (int i = 0; i < rows; ++i) {
                total[i][0] += a[i] * left;
                total[i][1] += a[i] * right;
            }
        }
        __builtin_memcpy(sum, total, sizeof sum);
    }

    // c[height, width] = beta c + sum, of which only these entries exist.
    void add_to(C* c, std::int64_t stride, std::int64_t height, std::int64_t width, C beta) const {
        for (std::int64_t i = 0; i < height; ++i) {
            C* const to = c + i * stride;
            const C* const from = sum + i * columns;
            if (beta == 0) {
                for (std::int64_t j = 0; j < width; ++j) to[j] = from[j];
            } else {
                for (std::int64_t j = 0; j < width; ++j) to[j] = beta * to[j] + from[j];
            }
        }
    }
};

// Copies a slab, `across` entries (at most Width) by `depth`, to `out` as depth × Width; what does not exist becomes 0.
// Neighbours across lie `step` apart in memory, neighbours in depth `step_depth`; one of the two is 1.
template <int Width, class C, class T>
void pack_slab(const T* from, std::int64_t step, std::int64_t step_depth, std::int64_t across, std::int64_t depth,
               C* out) {
    if (step == 1 && across == Width) {
        for (std::int64_t p = 0; p < depth; ++p, from += step_depth, out += Width) {
            for (int i = 0; i < Width; ++i) out[i] = static_cast<C>(from[i]);
        }
        return;
    }
    for (std::int64_t i = 0; i < Width; ++i) {
        if (i < across) {
            const T* const line = from + i * step;
            for (std::int64_t p = 0; p < depth; ++p) out[p * Width + i] = static_cast<C>(line[p * step_depth]);
        } else {
            for (std::int64_t p = 0; p < depth; ++p) out[p * Width + i] = C(0);
        }
    }
}

// One product, block by block: `depth` × `width` entries of b are packed and stay in the second-level cache while every
// row of a passes.
template <class A, class B, class C>
struct plain_product {
    using tile = gemm_tile<C>;
    static constexpr std::int64_t block_depth = 128;
    static constexpr std::int64_t block_width = 65536 / (block_depth * static_cast<std::int64_t>(sizeof(C)));
    static_assert(block_width % tile::columns == 0);

    std::int64_t m, n, k;
    operand<A> a;
    operand<B> b;
    C beta;
    C* c;
    std::int64_t stride_c;

    void run() const {
        for (std::int64_t column = 0; column < n; column += block_width) {
            const std::int64_t width = least(block_width, n - column);
            std::int64_t p = 0;
            do {  // once with nothing to add, where k is 0
                block(column, width, p, least(block_depth, k - p), p == 0 ? beta : C(1));
                p += block_depth;
            } while (p < k);
        }
    }

private:
    static std::int64_t least(std::int64_t x, std::int64_t y) { return x < y ? x : y; }

    void block(std::int64_t column, std::int64_t width, std::int64_t p, std::int64_t depth, C scale) const {
        alignas(64) C packed_b[block_depth * block_width];
        alignas(64) C packed_a[block_depth * tile::rows];
        const std::int64_t across_b = b.transposed ? b.stride : 1, along_b = b.transposed ? 1 : b.stride;
        const std::int64_t across_a = a.transposed ? 1 : a.stride, along_a = a.transposed ? a.stride : 1;
        for (std::int64_t j = 0; j < width; j += tile::columns) {
            if (depth == 0) break;
            pack_slab<tile::columns>(b.data + (column + j) * across_b + p * along_b, across_b, along_b,
                                     least(tile::columns, width - j), depth, packed_b + j * depth);
        }
        for (std::int64_t i = 0; i < m; i += tile::rows) {
            const std::int64_t height = least(tile::rows, m - i);
            if (depth > 0) {
                pack_slab<tile::rows>(a.data + i * across_a + p * along_a, across_a, along_a, height, depth, packed_a);
            }
            for (std::int64_t j = 0; j < width; j += tile::columns) {
                tile t;
                t.multiply(depth, packed_a, packed_b + j * depth);
                t.add_to(c + i * stride_c + column + j, stride_c, height, least(tile::columns, width - j), scale);
            }
        }
    }
};

}  // namespace detail

// The standard library's means alone: any mix of float, double, bfloat16 and float16 operands, summed in C (float or
// double) in blocks of 128 terms. Allocates nothing; about 70 KiB of the calling thread's stack. The same bits from run
// to run, and for a row of c whatever the other rows are. Errors: negative sizes, a stride below a row's length, null
// pointers. O(m n k).
struct plain_gemm {
    template <detail::gemm_storage A, detail::gemm_storage B, detail::gemm_compute C>
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, operand<A> a, operand<B> b,
                  std::type_identity_t<C> beta, C* c, std::int64_t stride_c) const {
        detail::require(detail::check_product("plain_gemm", m, n, k, a, b, c, stride_c));
        detail::plain_product<A, B, C>{m, n, k, a, b, beta, c, stride_c}.run();
    }
};

}  // namespace grpo::inline v0
