// Products of few rows with packed matrices, bound by reading the matrix: in float, bf16 and int8.

#pragma once

#include <vector>

#include "native_products.h"

namespace {

// Elements of a panel of K rows. In int8 four rows of a column lie together, as the processor's instruction wants them, and
// behind them are a scale and the sum of the weights (float and int32) of each column.
template <typename W> inline I panel_size(I K) { return panel_rows<W>(K) * WIDE; }
template <> inline I panel_size<int8_t>(I K) { return up(K, 32) * WIDE + 8 * WIDE; }

// Rows of float as products with a matrix of type W read them; zero up to a multiple of 32.
template <typename W> struct Rows {
    const float* first;
    I stride;
    void read(I, I, const float* x, I distance) { first = x, stride = distance; }
};

// sums [64] (+)= row m of x [K] times the panel
inline void multiply_row(I K, const Rows<float>& x, I m, const float* panel, float* sums, bool add) {
    rows_fp32<1, 0>(K, x.first + m * x.stride, 0, panel, WIDE, sums, WIDE, add, nullptr);
}

// Reads the panel from its first byte to its last, and asks for it 16 KB ahead: twice as fast as column by column.
inline void multiply_row(I K, const Rows<bf16>& x, I m, const bf16* panel, float* sums, bool add) {
    const float* row = x.first + m * x.stride;
    V sum[4][4];
    for (int n = 0; n < 4; n++) {
        sum[n][0] = add ? load(sums + 16 * n) : zero();
        sum[n][1] = sum[n][2] = sum[n][3] = zero();
    }
    for (I k = 0; k < K; k += 32)
        for (int n = 0; n < 4; n++)
            for (I i = k; i < k + 32; i += 4, panel += 64) {
                fetch(panel, 16384), fetch(panel, 16448);
                const Pairs two = load_pairs(panel), next = load_pairs(panel + 32);
                sum[n][0] = fmadd(set(row[i]), even_of(two), sum[n][0]);
                sum[n][1] = fmadd(set(row[i + 1]), odd_of(two), sum[n][1]);
                sum[n][2] = fmadd(set(row[i + 2]), even_of(next), sum[n][2]);
                sum[n][3] = fmadd(set(row[i + 3]), odd_of(next), sum[n][3]);
            }
    for (int n = 0; n < 4; n++) store(sums + 16 * n, sum[n][0] + sum[n][1] + (sum[n][2] + sum[n][3]));
}

#ifdef __AVX512VNNI__
// Each row in 16 bits, its largest number as 32767, plus 32768: high and low byte apart, which the processor multiplies by
// signed weights. The weight is read once for both.
template <> struct Rows<int8_t> {
    std::vector<uint8_t> high, low;
    std::vector<float> scale;
    I stride;
    void read(I M, I K, const float* x, I distance) {
        stride = up(K, 16), high.resize(M * stride), low.resize(M * stride), scale.resize(M);
        for (I m = 0; m < M; m++, x += distance) {
            V largest = set(1e-30f);
            for (I k = 0; k < K; k += 16) largest = _mm512_max_ps(largest, _mm512_abs_ps(load(x + k)));
            const float peak = _mm512_reduce_max_ps(largest);
            scale[m] = peak / 32767.0f;
            for (I k = 0; k < K; k += 16) {
                const __m512i whole = _mm512_cvtps_epi32(_mm512_fmadd_ps(load(x + k), set(32767.0f / peak), set(32768.0f)));
                _mm_storeu_si128((__m128i*)(high.data() + m * stride + k), _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
                _mm_storeu_si128((__m128i*)(low.data() + m * stride + k), _mm512_cvtepi32_epi8(whole));
            }
        }
    }
};

inline __m512i four_of(const uint8_t* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

inline void multiply_row(I K, const Rows<int8_t>& x, I m, const int8_t* panel, float* sums, bool add) {
    const uint8_t *x_high = x.high.data() + m * x.stride, *x_low = x.low.data() + m * x.stride;
    __m512i high[4], low[4];
    for (int n = 0; n < 4; n++) high[n] = low[n] = _mm512_setzero_si512();
    for (I k = 0; k < K; k += 4) {
        const __m512i four_high = four_of(x_high + k), four_low = four_of(x_low + k);
        for (int n = 0; n < 4; n++) {
            const int8_t* b = panel + k * WIDE + n * 64;
            fetch(b, 4096);
            const __m512i w = _mm512_loadu_si512(b);
            high[n] = _mm512_dpbusd_epi32(high[n], four_high, w), low[n] = _mm512_dpbusd_epi32(low[n], four_low, w);
        }
    }
    const float* scale = (const float*)(panel + panel_size<int8_t>(K)) - 2 * WIDE;
    const int32_t* weights = (const int32_t*)(scale + WIDE);
    for (int n = 0; n < 4; n++, sums += 16) {
        const __m512i zero = _mm512_slli_epi32(_mm512_loadu_si512(weights + 16 * n), 7);
        const V upper = _mm512_cvtepi32_ps(_mm512_sub_epi32(high[n], zero)), lower = _mm512_cvtepi32_ps(low[n]);
        const V whole = _mm512_fmadd_ps(upper, set(256.0f), lower), by = _mm512_mul_ps(load(scale + 16 * n), set(x.scale[m]));
        store(sums, _mm512_fmadd_ps(whole, by, add ? load(sums) : _mm512_setzero_ps()));
    }
}
#endif

// sums [M, 64] (+)= x [M, K] panel
template <typename W> inline void multiply(I M, I K, const Rows<W>& x, const W* panel, float* sums, bool add) {
    for (I m = 0; m < M; m++) multiply_row(K, x, m, panel, sums + m * WIDE, add);
}
template <> inline void multiply(I M, I K, const Rows<float>& x, const float* panel, float* sums, bool add) {
    if (M == 1) multiply_row(K, x, 0, panel, sums, add);
    else product(M, K, x.first, x.stride, panel, sums, WIDE, add);
}

// Where 16 columns of a matrix of K rows begin, of the group g.
inline const float* group_of(const float* matrix, I K, I g) { return matrix + g / 4 * K * WIDE + g % 4 * 16; }

// x [K] times 16 columns of a packed matrix
inline V columns(I K, const float* x, const float* matrix) {
    V sum[8];
    for (V& s : sum) s = zero();
    I k = 0;
    for (; k + 8 <= K; k += 8)
        for (I i = 0; i < 8; i++) sum[i] = fmadd(set(x[k + i]), load(matrix + (k + i) * WIDE), sum[i]);
    for (; k < K; k++) sum[0] = fmadd(set(x[k]), load(matrix + k * WIDE), sum[0]);
    for (int i = 0; i < 4; i++) sum[i] = sum[i] + sum[i + 4];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

// Those elements of a vector that are not zero. ReLU and dropout leave about a quarter.
class Chosen {
  public:
    void take(I K, const float* x) {
        n = 0;
        if ((I)at.size() < K + 16) at.resize(K + 16), value.resize(K + 16);
        for (I k = 0; k < K; k += 16) n += choose(load_first(x + k, K - k), k, value.data() + n, at.data() + n);
    }

    // sums [64] += x panel
    void add(const float* panel, float* sums) const {
        V even[4], odd[4];
        for (int i = 0; i < 4; i++) even[i] = load(sums + 16 * i), odd[i] = zero();
        I j = 0;
        for (; j + 2 <= n; j += 2) {
            const float *first = panel + at[j] * WIDE, *second = panel + at[j + 1] * WIDE;
            const V x0 = set(value[j]), x1 = set(value[j + 1]);
            for (int i = 0; i < 4; i++)
                even[i] = fmadd(x0, load(first + 16 * i), even[i]), odd[i] = fmadd(x1, load(second + 16 * i), odd[i]);
        }
        if (j < n)
            for (int i = 0; i < 4; i++) even[i] = fmadd(set(value[j]), load(panel + at[j] * WIDE + 16 * i), even[i]);
        for (int i = 0; i < 4; i++) store(sums + 16 * i, even[i] + odd[i]);
    }

  private:
    I n = 0;
    std::vector<int32_t> at;
    std::vector<float> value;
};

// As `Rows`, of vectors with many zeros: float reads only the rows of a matrix that count.
template <typename W> struct SparseRows : Rows<W> {};
template <> struct SparseRows<float> {
    std::vector<Chosen> rows;
    void read(I M, I K, const float* x, I distance) {
        rows.resize(M);
        for (I m = 0; m < M; m++) rows[m].take(K, x + m * distance);
    }
};

inline void multiply_row(I, const SparseRows<float>& x, I m, const float* panel, float* sums, bool) { x.rows[m].add(panel, sums); }

}  // namespace
