// Vector arithmetic and small products with packed matrices, in float and in bf16 with sums in float.
//
// Products are C [M, 64] (+)= A [M, K] B [K, 64]. A may be any rows at any distance: windows of a sequence are rows one
// element apart, so location features need no copies. B is packed in panels of 64 columns; in bf16 two rows of B lie
// interleaved, as the processor's bf16 instructions want them. NaN passes through everything.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifndef __AVX512F__
#error "needs AVX-512"
#endif

namespace {

typedef __m512 V;
typedef uint16_t bf16;
typedef int64_t I;

inline V set(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline V load(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline __m256i rounded(V x) {  // to nearest even; NaN stays NaN
    const __m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc00000)), 16));
}
inline void store(bf16* p, V x) { _mm256_storeu_si256((__m256i*)p, rounded(x)); }
inline float scalar(float x) { return x; }
inline float scalar(bf16 x) {
    const uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline void put(float* p, float x) { *p = x; }
inline void put(bf16* p, float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    *p = x == x ? (bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16) : (bf16)0x7fc0;
}

// Polynomial of Cephes' expf, 2 ulp. The constant stands first in min and max, as these return the second operand for NaN.
inline V exp(V x) {
    x = _mm512_max_ps(set(-87.0f), _mm512_min_ps(set(87.0f), x));
    const V n = _mm512_roundscale_ps(_mm512_mul_ps(x, set(1.44269504088896341f)), 8);
    V r = _mm512_fnmadd_ps(n, set(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, set(-2.12194440e-4f), r);
    V p = set(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm512_fmadd_ps(p, r, set(c));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, set(1.0f)));
    return _mm512_scalef_ps(p, n);
}
inline V reciprocal(V x) {
    const V r = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, set(2.0f)));
}
inline V sigmoid(V x) { return reciprocal(_mm512_add_ps(set(1.0f), exp(_mm512_sub_ps(_mm512_setzero_ps(), x)))); }
inline V tanh(V x) {
    return _mm512_fnmadd_ps(set(2.0f), reciprocal(_mm512_add_ps(exp(_mm512_add_ps(x, x)), set(1.0f))), set(1.0f));
}
inline V one_minus_square(V x) { return _mm512_fnmadd_ps(x, x, set(1.0f)); }

// Of a vector of bf16 pairs.
inline V even_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
inline V odd_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))); }

inline I up(I n, I to) { return (n + to - 1) / to * to; }

// ---- products --------------------------------------------------------------------------------------------------

const I WIDE = 64;  // columns of a panel

template <typename S> inline I panel_rows(I K);
template <> inline I panel_rows<float>(I K) { return K; }
template <> inline I panel_rows<bf16>(I K) { return up(K, 32); }

// Where row k, column c of a panel lies.
template <typename S> inline I place(I k, I c);
template <> inline I place<float>(I k, I c) { return k * WIDE + c; }
template <> inline I place<bf16>(I k, I c) {
    return (k / 32 * 4 + c / 16) * 512 + (k % 32 / 2) * 32 + c % 16 * 2 + k % 2;
}

// While it multiplies, it fetches `LINES` cache lines a row of what comes next.
template <int M, int LINES>
void rows_fp32(I K, const float* A, I lda, const float* B, float* C, I ldc, bool add, const float* next) {
    V sum[M][4];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < 4; n++) sum[m][n] = add ? load(C + m * ldc + 16 * n) : _mm512_setzero_ps();
    for (I k = 0; k < K; k++) {
        const float* b = B + k * WIDE;
        for (int i = 0; i < LINES; i++) _mm_prefetch((const char*)(next + (k * LINES + i) * 16), _MM_HINT_T0);
        const V b0 = load(b), b1 = load(b + 16), b2 = load(b + 32), b3 = load(b + 48);
        for (int m = 0; m < M; m++) {
            const V a = set(A[m * lda + k]);
            sum[m][0] = _mm512_fmadd_ps(a, b0, sum[m][0]), sum[m][1] = _mm512_fmadd_ps(a, b1, sum[m][1]);
            sum[m][2] = _mm512_fmadd_ps(a, b2, sum[m][2]), sum[m][3] = _mm512_fmadd_ps(a, b3, sum[m][3]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < 4; n++) store(C + m * ldc + 16 * n, sum[m][n]);
}

// C [M, 64] (+)= A [M, K] B, in runs of K whose part of the panel stays in the first-level cache. The first rows fetch the
// next run meanwhile: without that a weight larger than the second-level cache is multiplied at a third of the speed.
void product(I M, I K, const float* A, I lda, const float* B, float* C, I ldc, bool add = false) {
    const I RUN = 48;
    for (I k = 0; k < K; k += RUN, add = true) {
        const I n = std::min(RUN, K - k);
        const float *b = B + k * WIDE, *a = A + k, *next = b + n * WIDE;
        I m = 0;
        if (M >= 12) {
            rows_fp32<6, 2>(n, a, lda, b, C, ldc, add, next);
            rows_fp32<6, 2>(n, a + 6 * lda, lda, b, C + 6 * ldc, ldc, add, next + n * 32);
            m = 12;
        } else if (M >= 6) {
            rows_fp32<6, 4>(n, a, lda, b, C, ldc, add, next), m = 6;
        } else if (M >= 4) {
            rows_fp32<4, 4>(n, a, lda, b, C, ldc, add, next), m = 4;
        } else if (M >= 2) {
            rows_fp32<2, 4>(n, a, lda, b, C, ldc, add, next), m = 2;
        }
        for (; m + 6 <= M; m += 6) rows_fp32<6, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
        for (; m + 4 <= M; m += 4) rows_fp32<4, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
        for (; m + 2 <= M; m += 2) rows_fp32<2, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
        for (; m < M; m++) rows_fp32<1, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
    }
}

#ifdef __AMX_BF16__
struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0-3 hold sums, 4 rows of A, 5-7 parts of B. What was configured before is put back at the end.
struct Tiles {
    alignas(64) TileConfig before;
    Tiles() {
        alignas(64) TileConfig config;
        for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
        _tile_storeconfig(&before);
        _tile_loadconfig(&config);
    }
    ~Tiles() {
        if (before.palette) _tile_loadconfig(&before);
        else _tile_release();
    }
};

// A must be readable in whole groups of 16 rows; only M rows of C are written.
void product(I M, I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add = false) {
    alignas(64) float rest[16 * WIDE];
    for (I m = 0; m < M; m += 16) {
        const I rows = std::min<I>(16, M - m);
        float* c = C + m * ldc;
        I stride = ldc * 4;
        if (rows < 16) {
            if (add)
                for (I i = 0; i < rows; i++) memcpy(rest + i * WIDE, c + i * ldc, WIDE * 4);
            c = rest, stride = WIDE * 4;
        }
        if (add) {
            _tile_loadd(0, c, stride);
            _tile_loadd(1, c + 16, stride);
            _tile_loadd(2, c + 32, stride);
            _tile_loadd(3, c + 48, stride);
        } else {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        const bf16 *a = A + m * lda, *b = B;
        for (I k = 0; k < K; k += 32, b += 2048) {
            _tile_loadd(4, a + k, lda * 2);
            _tile_loadd(5, b, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, b + 512, 64);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, b + 1024, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, b + 1536, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
        _tile_stored(0, c, stride);
        _tile_stored(1, c + 16, stride);
        _tile_stored(2, c + 32, stride);
        _tile_stored(3, c + 48, stride);
        if (rows < 16)
            for (I i = 0; i < rows; i++) memcpy(C + (m + i) * ldc, rest + i * WIDE, WIDE * 4);
    }
}
#else
struct Tiles {};

// sum + x_even y_even + x_odd y_odd
inline V add_pairs(V sum, __m512i x, __m512i y) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y);
#else
    return _mm512_fmadd_ps(even_of(x), even_of(y), _mm512_fmadd_ps(odd_of(x), odd_of(y), sum));
#endif
}

template <int M> void rows_bf16(I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add) {
    V sum[M][4];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < 4; n++) sum[m][n] = add ? load(C + m * ldc + 16 * n) : _mm512_setzero_ps();
    for (I k = 0; k < K; k += 2) {
        const bf16* b = B + k / 32 * 2048 + k % 32 * 16;
        for (int m = 0; m < M; m++) {
            int32_t pair;
            memcpy(&pair, A + m * lda + k, 4);
            const __m512i x = _mm512_set1_epi32(pair);
            for (int n = 0; n < 4; n++) sum[m][n] = add_pairs(sum[m][n], x, _mm512_loadu_si512(b + n * 512));
        }
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < 4; n++) store(C + m * ldc + 16 * n, sum[m][n]);
}

void product(I M, I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add = false) {
    K = up(K, 32);
    I m = 0;
    for (; m + 4 <= M; m += 4) rows_bf16<4>(K, A + m * lda, lda, B, C + m * ldc, ldc, add);
    for (; m < M; m++) rows_bf16<1>(K, A + m * lda, lda, B, C + m * ldc, ldc, add);
}
#endif

inline void put_pair(bf16* p, V even, V odd) {
    const __m512i low = _mm512_cvtepu16_epi32(rounded(even)), high = _mm512_cvtepu16_epi32(rounded(odd));
    _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

}  // namespace
