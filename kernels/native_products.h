// Small products with packed matrices, in float and in bf16 with sums in float.
//
// Products are C [M, 64] (+)= A [M, K] B [K, 64]. A may be any rows at any distance: windows of a sequence are rows one
// element apart, so location features need no copies. B is packed in panels of 64 columns; in bf16 two rows of B lie
// interleaved, as the processor's bf16 instructions want them. NaN passes through everything.

#pragma once

#include "native_simd.h"

namespace {

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
void rows_fp32(I K, const float* A, I lda, const float* B, I ldb, float* C, I ldc, bool add, const float* next) {
    const int N = vectors_of(M), FETCHED = LINES * N / 4;
    const bool IS_HALF = LINES * N == 2;  // a line every other row
    static_assert(IS_HALF || FETCHED * 4 == LINES * N, "lines are shared among passes");
    for (I c = 0; c < WIDE; c += 16 * N, next += K * LINES * N / 4 * 16) {
        V sum[M][N];
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) sum[m][n] = add ? load(C + m * ldc + c + 16 * n) : zero();
        for (I k = 0; k < K; k++) {
            for (int i = 0; i < FETCHED; i++) fetch(next + (k * FETCHED + i) * 16);
            if (IS_HALF && k % 2 == 0) fetch(next + k * 8);
            V b[N];
            for (int n = 0; n < N; n++) b[n] = load(B + k * ldb + c + 16 * n);
            for (int m = 0; m < M; m++) {
                const V a = set(A[m * lda + k]);
                for (int n = 0; n < N; n++) sum[m][n] = fmadd(a, b[n], sum[m][n]);
            }
        }
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) store(C + m * ldc + c + 16 * n, sum[m][n]);
    }
}

// C [M, 64] (+)= A [M, K] B, whose rows lie ldb apart, in runs of K whose part of the panel stays in the first-level cache.
// The first rows fetch the next run meanwhile: without that a weight larger than the second-level cache is multiplied at a
// third of the speed.
void product_with_rows(I M, I K, const float* A, I lda, const float* B, I ldb, float* C, I ldc, bool add) {
    const I RUN = 48;
    const int SHARED = 2;  // blocks of rows that fetch it: one would ask for more than memory gives meanwhile
    for (I k = 0; k < K; k += RUN, add = true) {
        const I n = std::min(RUN, K - k);
        const float *b = B + k * ldb, *a = A + k, *next = b + n * ldb;
        I m = 0;
        if (M >= 6 * SHARED) {
            for (int i = 0; i < SHARED; i++, m += 6)
                rows_fp32<6, 4 / SHARED>(n, a + m * lda, lda, b, ldb, C + m * ldc, ldc, add, next + i * n * WIDE / SHARED);
        } else if (M >= 6) {
            rows_fp32<6, 4>(n, a, lda, b, ldb, C, ldc, add, next), m = 6;
        } else if (M >= 4) {
            rows_fp32<4, 4>(n, a, lda, b, ldb, C, ldc, add, next), m = 4;
        } else if (M >= 2) {
            rows_fp32<2, 4>(n, a, lda, b, ldb, C, ldc, add, next), m = 2;
        }
        for (; m + 6 <= M; m += 6) rows_fp32<6, 0>(n, a + m * lda, lda, b, ldb, C + m * ldc, ldc, add, next);
        for (; m + 4 <= M; m += 4) rows_fp32<4, 0>(n, a + m * lda, lda, b, ldb, C + m * ldc, ldc, add, next);
        for (; m + 2 <= M; m += 2) rows_fp32<2, 0>(n, a + m * lda, lda, b, ldb, C + m * ldc, ldc, add, next);
        for (; m < M; m++) rows_fp32<1, 0>(n, a + m * lda, lda, b, ldb, C + m * ldc, ldc, add, next);
    }
}
inline void product(I M, I K, const float* A, I lda, const float* B, float* C, I ldc, bool add = false) {
    product_with_rows(M, K, A, lda, B, WIDE, C, ldc, add);
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
#elif defined(__AVX512F__)
struct Tiles {};

template <int M> void rows_bf16(I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add) {
    const int N = vectors_of(M);
    for (I c = 0; c < WIDE; c += 16 * N) {
        V sum[M][N];
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) sum[m][n] = add ? load(C + m * ldc + c + 16 * n) : zero();
        for (I k = 0; k < K; k += 2) {
            const bf16* b = B + k / 32 * 2048 + k % 32 * 16 + c * 32;
            for (int m = 0; m < M; m++) {
                const Pairs x = repeated(A + m * lda + k);
                for (int n = 0; n < N; n++) sum[m][n] = add_pairs(sum[m][n], x, load_pairs(b + n * 512));
            }
        }
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) store(C + m * ldc + c + 16 * n, sum[m][n]);
    }
}

void product(I M, I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add = false) {
    K = up(K, 32);
    I m = 0;
    for (; m + 4 <= M; m += 4) rows_bf16<4>(K, A + m * lda, lda, B, C + m * ldc, ldc, add);
    for (; m < M; m++) rows_bf16<1>(K, A + m * lda, lda, B, C + m * ldc, ldc, add);
}
#else
struct Tiles {};

// While it multiplies, it fetches what comes next if FETCHES. At most 128 of K: so much of A, widened once for all columns,
// and of the panel stays in the first-level cache.
template <int M, bool FETCHES> void rows_bf16(I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add) {
    float a[M][128];
    for (int m = 0; m < M; m++)
        for (I k = 0; k < K; k += 16) store(a[m] + k, load(A + m * lda + k));
    const bf16* next = B + K * WIDE;
    for (I c = 0; c < WIDE; c += 16) {
        V sum[M];
        for (int m = 0; m < M; m++) sum[m] = add ? load(C + m * ldc + c) : zero();
        for (I k = 0; k < K; k += 2) {
            if (FETCHES) fetch(next), next += 32;
            const Pairs b = load_pairs(B + k / 32 * 2048 + k % 32 * 16 + c * 32);
            const V even = even_of(b), odd = odd_of(b);
#pragma GCC unroll 4  // else sums of several registers stay in memory
            for (int m = 0; m < M; m++) sum[m] = fmadd(set(a[m][k]), even, fmadd(set(a[m][k + 1]), odd, sum[m]));
        }
        for (int m = 0; m < M; m++) store(C + m * ldc + c, sum[m]);
    }
}

void product(I M, I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add = false) {
    for (I k = 0; k < up(K, 32); k += 128, add = true) {
        const I n = std::min<I>(128, up(K, 32) - k);
        const bf16 *b = B + k * WIDE, *a = A + k;
        I m = 0;
        if (M >= 4) rows_bf16<4, true>(n, a, lda, b, C, ldc, add), m = 4;
        for (; m + 4 <= M; m += 4) rows_bf16<4, false>(n, a + m * lda, lda, b, C + m * ldc, ldc, add);
        for (; m < M; m++) rows_bf16<1, false>(n, a + m * lda, lda, b, C + m * ldc, ldc, add);
    }
}
#endif

}  // namespace
