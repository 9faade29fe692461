// The vocabulary of `native_simd.h` on AVX-512: a vector is one register.

#pragma once

#include <immintrin.h>

namespace {

typedef __m512 V;
typedef __m512i Pairs;  // 16 pairs of bf16

constexpr int vectors_of(int) { return 4; }  // sums of 6 rows of a product fill 24 of 32 registers

inline __mmask16 first_lanes(I n) { return (1u << std::clamp<I>(n, 0, 16)) - 1; }

inline V zero() { return _mm512_setzero_ps(); }
inline V set(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline V load_first(const float* p, I n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store_first(float* p, I n, V x) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
inline V from_bytes(const uint8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline V gather_first(const float* p, I stride, I n) {
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_mask_i32gather_ps(zero(), first_lanes(n), _mm512_mullo_epi32(_mm512_set1_epi32(stride), places), p, 4);
}

inline V fmadd(V x, V y, V z) { return _mm512_fmadd_ps(x, y, z); }
inline V fnmadd(V x, V y, V z) { return _mm512_fnmadd_ps(x, y, z); }
inline V minimum(V x, V y) { return _mm512_min_ps(x, y); }
inline V maximum(V x, V y) { return _mm512_max_ps(x, y); }
inline V to_whole(V x) { return _mm512_roundscale_ps(x, 8); }
inline V times_power_of_two(V x, V n) { return _mm512_scalef_ps(x, n); }
inline V reciprocal(V x) {
    const V r = _mm512_rcp14_ps(x);
    return r * _mm512_fnmadd_ps(x, r, set(2.0f));
}
inline float sum_of(V x) { return _mm512_reduce_add_ps(x); }
inline float first_of(V x) { return _mm512_cvtss_f32(x); }

inline void shift_down(V& low, V& high) {
    const __m512i l = _mm512_castps_si512(low), h = _mm512_castps_si512(high);
    low = _mm512_castsi512_ps(_mm512_alignr_epi32(h, l, 1));
    high = _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_setzero_si512(), h, 1));
}

inline I choose(V x, I first, float* values, int32_t* places) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 chosen = _mm512_cmp_ps_mask(x, zero(), _CMP_NEQ_UQ);
    store(values, _mm512_maskz_compress_ps(chosen, x));
    _mm512_storeu_si512(places, _mm512_maskz_compress_epi32(chosen, _mm512_add_epi32(lanes, _mm512_set1_epi32(first))));
    return __builtin_popcount(chosen);
}

// ---- bf16

inline V load(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline __m256i rounded(V x) {
    const __m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc00000)), 16));
}
inline void store(bf16* p, V x) { _mm256_storeu_si256((__m256i*)p, rounded(x)); }

inline Pairs load_pairs(const bf16* p) { return _mm512_loadu_si512(p); }
inline Pairs repeated(const bf16* pair) {
    int32_t both;
    memcpy(&both, pair, 4);
    return _mm512_set1_epi32(both);
}
inline V even_of(Pairs x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline V odd_of(Pairs x) { return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000))); }
inline void store_pairs(bf16* p, V even, V odd) {
    const __m512i low = _mm512_cvtepu16_epi32(rounded(even)), high = _mm512_cvtepu16_epi32(rounded(odd));
    _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
inline V add_pairs(V sum, Pairs x, Pairs y) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y);
#else
    return fmadd(even_of(x), even_of(y), fmadd(odd_of(x), odd_of(y), sum));
#endif
}

}  // namespace
