// Whole packs of float from and to 16-bit storage, where the instruction set has a way; elsewhere entries go one by one.
#pragma once

#include <cstdint>

#include <xsimd/xsimd.hpp>

#include <grpo/detail/config.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0::detail {

// load(p) and store(p, x) of a whole pack, if `exists`.
template <class Storage, class Pack>
struct storage_pack {
    static constexpr bool exists = false;
};

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

template <class A>
    requires(xsimd::batch<float, A>::size == 16)
struct storage_pack<bfloat16, xsimd::batch<float, A>> {
    static constexpr bool exists = true;
    using pack = xsimd::batch<float, A>;

    GRPO_HD static pack load(const bfloat16* p) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return pack(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
    }
    // To the nearest, ties to even. The instruction of AVX512_BF16 takes numbers below 2^-126 for 0.
    GRPO_HD static void store(bfloat16* p, const pack& x) {
#if defined(__AVX512BF16__)
        const __m256i bits = __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(x));
#else
        const __m512i u = _mm512_castps_si512(x);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
        const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
        const __m256i bits = _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
    }
};

template <class A>
    requires(xsimd::batch<float, A>::size == 16)
struct storage_pack<float16, xsimd::batch<float, A>> {
    static constexpr bool exists = true;
    using pack = xsimd::batch<float, A>;

    GRPO_HD static pack load(const float16* p) {
        return pack(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
    }
    GRPO_HD static void store(float16* p, const pack& x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
};

#elif defined(__AVX2__)

template <class A>
    requires(xsimd::batch<float, A>::size == 8)
struct storage_pack<bfloat16, xsimd::batch<float, A>> {
    static constexpr bool exists = true;
    using pack = xsimd::batch<float, A>;

    GRPO_HD static pack load(const bfloat16* p) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return pack(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
    }
    // To the nearest, ties to even.
    GRPO_HD static void store(bfloat16* p, const pack& x) {
        const __m256i u = _mm256_castps_si256(x);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
        const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
    }
};

#endif

}  // namespace grpo::inline v0::detail
