// The decoder's two step loops, forward and backward, as `kernels.loops` defines them; compiled and called by `kernels.native`.
//
// S is the type that is stored: float, or bf16 with sums in fp32. Threads share the units of an LSTM in products with
// its weight, and the utterances of a batch in attention; each number is summed by one thread in one order, so results
// do not depend on how many threads there are. NaN passes through everything.
//
// Products are C [M, 64] (+)= A [M, K] B [K, 64]. A may be any rows at any distance: windows of a sequence are rows one
// element apart, so location features need no copies. B is packed in panels of 64 columns; in bf16 two rows of B lie
// interleaved, as the processor's bf16 instructions want them.

#include <immintrin.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

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

// C [M, 64] (+)= A [M, K] B, in runs of K whose part of the panel stays in the first-level cache. The first twelve rows
// fetch the next run meanwhile: without that a weight larger than the second-level cache is multiplied at a third of the speed.
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
        }
        for (; m + 6 <= M; m += 6) rows_fp32<6, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
        for (; m + 4 <= M; m += 4) rows_fp32<4, 0>(n, a + m * lda, lda, b, C + m * ldc, ldc, add, next);
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

template <int M> void rows_bf16(I K, const bf16* A, I lda, const bf16* B, float* C, I ldc, bool add) {
    V sum[M][4];
    for (int m = 0; m < M; m++)
        for (int n = 0; n < 4; n++) sum[m][n] = add ? load(C + m * ldc + 16 * n) : _mm512_setzero_ps();
    for (I k = 0; k < K; k += 2) {
        const bf16* b = B + k / 32 * 2048 + k % 32 * 16;
        for (int m = 0; m < M; m++) {
            uint32_t pair;
            memcpy(&pair, A + m * lda + k, 4);
            const V first = set(scalar((bf16)pair)), second = set(scalar((bf16)(pair >> 16)));
            for (int n = 0; n < 4; n++) {
                const __m512i both = _mm512_loadu_si512(b + n * 512);
                const V even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
                const V odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
                sum[m][n] = _mm512_fmadd_ps(first, even, _mm512_fmadd_ps(second, odd, sum[m][n]));
            }
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

// ---- LSTM cell -------------------------------------------------------------------------------------------------

// Sums of 16 units' gates, each 16 apart in `sums`, become activations. All pointers at the unit; gates D apart.
template <typename S>
inline void cell_forward(const float* sums, const float* bias, S* gates, I D, const S* mask, float* cell, S* saved, S* hidden) {
    V a[4];
    for (int g = 0; g < 4; g++)
        a[g] = _mm512_add_ps(_mm512_add_ps(load(sums + 16 * g), load(bias + g * D)), load(gates + g * D));
    const V i = sigmoid(a[0]), f = sigmoid(a[1]), g = tanh(a[2]), o = sigmoid(a[3]);
    const V c = _mm512_fmadd_ps(f, load(cell), _mm512_mul_ps(i, g));
    V h = _mm512_mul_ps(o, tanh(c));
    if (mask) h = _mm512_mul_ps(h, load(mask));
    store(cell, c), store(saved, c), store(hidden, h);
    store(gates, i), store(gates + D, f), store(gates + 2 * D, g), store(gates + 3 * D, o);
}

template <typename S>
inline void cell_backward(V dh, const S* gates, I D, const S* mask, const S* before, const S* cell, float* grad_cell, S* grad) {
    const V i = load(gates), f = load(gates + D), g = load(gates + 2 * D), o = load(gates + 3 * D);
    const V t = tanh(load(cell)), one = set(1.0f);
    if (mask) dh = _mm512_mul_ps(dh, load(mask));
    const V dc = _mm512_fmadd_ps(_mm512_mul_ps(dh, o), one_minus_square(t), load(grad_cell));
    store(grad_cell, _mm512_mul_ps(dc, f));
    store(grad, _mm512_mul_ps(_mm512_mul_ps(dc, g), _mm512_mul_ps(i, _mm512_sub_ps(one, i))));
    store(grad + D, _mm512_mul_ps(_mm512_mul_ps(dc, load(before)), _mm512_mul_ps(f, _mm512_sub_ps(one, f))));
    store(grad + 2 * D, _mm512_mul_ps(_mm512_mul_ps(dc, i), one_minus_square(g)));
    store(grad + 3 * D, _mm512_mul_ps(_mm512_mul_ps(dh, t), _mm512_mul_ps(o, _mm512_sub_ps(one, o))));
}

// One step of an LSTM for the units of this thread. Panel u holds the four gates of units 16u to 16u + 15.
template <typename S>
void units_forward(I B, I D, I K, I first, I last, const S* weight, const float* bias, const S* input, S* gates, const S* mask,
                   float* cell, S* saved, S* hidden, float* sums) {
    for (I u = first; u < last; u++) {
        product(B, K, input, K, weight + u * panel_rows<S>(K) * WIDE, sums, WIDE);
        for (I b = 0; b < B; b++)
            cell_forward<S>(sums + b * WIDE, bias + 16 * u, gates + b * 4 * D + 16 * u, D, mask ? mask + b * D + 16 * u : nullptr,
                            cell + b * D + 16 * u, saved + b * D + 16 * u, hidden + b * K + 16 * u);
    }
}

// ---- attention -------------------------------------------------------------------------------------------------

// Sizes and what stays the same over all steps.
template <typename S> struct Attention {
    I B, D, E, A, N, L;  // L elements of a padded row of weights
    const S *kernel, *kernel_back;  // packed: for each channel [32, A], and [A, 64]; taps of both channels 32 apart
    const float *v, *keys;          // [A], [B, N, A]
    const S* values;                // N rounded up to even; float: [B, N, E], bf16: [B, N / 2, E, 2]
    const I* lengths;               // [B]
};

// z [len, A] = location features + query + keys
template <typename S> void sums_before_tanh(const Attention<S>& a, I b, const S* padded, const float* q, float* z) {
    const I len = a.lengths[b], n_panels = a.A / WIDE;
    for (I p = 0; p < n_panels; p++) {
        product(len, 32, padded, 1, a.kernel + p * 32 * WIDE, z + p * WIDE, a.A);
        product(len, 32, padded + a.L, 1, a.kernel + (n_panels + p) * 32 * WIDE, z + p * WIDE, a.A, true);
    }
    const float* keys = a.keys + b * a.N * a.A;
    for (I n = 0; n < len; n++)
        for (I c = 0; c < a.A; c += 16) {
            float* p = z + n * a.A + c;
            store(p, _mm512_add_ps(load(p), _mm512_add_ps(load(q + c), load(keys + n * a.A + c))));
        }
}

inline void context_of(I len, I E, const float* values, const float* w, float* out) {
    for (I e = 0; e < E; e += 64) {
        V s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
        for (I n = 0; n < len; n++) {
            const float* p = values + n * E + e;
            const V x = set(w[n]);
            s0 = _mm512_fmadd_ps(x, load(p), s0), s1 = _mm512_fmadd_ps(x, load(p + 16), s1);
            s2 = _mm512_fmadd_ps(x, load(p + 32), s2), s3 = _mm512_fmadd_ps(x, load(p + 48), s3);
        }
        store(out + e, s0), store(out + e + 16, s1), store(out + e + 32, s2), store(out + e + 48, s3);
    }
}
inline V even_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
inline V odd_of(__m512i pair) { return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))); }

// w [len + 1], its last element 0 where len is odd
inline void context_of(I len, I E, const bf16* values, const float* w, float* out) {
    for (I e = 0; e < E; e += 64) {
        V sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        for (I n = 0; n < len; n += 2) {
            const V first = set(w[n]), second = set(n + 1 < len ? w[n + 1] : 0.0f);
            for (int i = 0; i < 4; i++) {
                const __m512i pair = _mm512_loadu_si512(values + n * E + 2 * (e + 16 * i));
                sum[i] = _mm512_fmadd_ps(first, even_of(pair), _mm512_fmadd_ps(second, odd_of(pair), sum[i]));
            }
        }
        for (int i = 0; i < 4; i++) store(out + e + 16 * i, sum[i]);
    }
}

// dots [len] = values [len, E] x
inline void dots_of(I len, I E, const float* values, const float* x, float* dots) {
    for (I n = 0; n < len; n++) {
        V s0 = _mm512_setzero_ps(), s1 = s0;
        for (I e = 0; e < E; e += 32) {
            s0 = _mm512_fmadd_ps(load(values + n * E + e), load(x + e), s0);
            s1 = _mm512_fmadd_ps(load(values + n * E + e + 16), load(x + e + 16), s1);
        }
        dots[n] = _mm512_reduce_add_ps(_mm512_add_ps(s0, s1));
    }
}
inline void dots_of(I len, I E, const bf16* values, const float* x, float* dots) {
    for (I n = 0; n < len; n += 2) {
        V s0 = _mm512_setzero_ps(), s1 = s0;
        for (I e = 0; e < E; e += 16) {
            const __m512i pair = _mm512_loadu_si512(values + n * E + 2 * e);
            s0 = _mm512_fmadd_ps(even_of(pair), load(x + e), s0), s1 = _mm512_fmadd_ps(odd_of(pair), load(x + e), s1);
        }
        dots[n] = _mm512_reduce_add_ps(s0);
        if (n + 1 < len) dots[n + 1] = _mm512_reduce_add_ps(s1);
    }
}

// One utterance, one step: weights [N] and the context. z scratch [up16(N), A].
template <typename S>
void attend(const Attention<S>& a, I b, const S* padded, const float* q, float* z, float* weights, float* context) {
    const I len = a.lengths[b];
    sums_before_tanh(a, b, padded, q, z);
    float top = -INFINITY, total = 0.0f;
    for (I n = 0; n < len; n++) {
        V e = _mm512_setzero_ps();
        for (I c = 0; c < a.A; c += 16) e = _mm512_fmadd_ps(tanh(load(z + n * a.A + c)), load(a.v + c), e);
        weights[n] = _mm512_reduce_add_ps(e);
        top = std::max(top, weights[n]);
    }
    for (I n = 0; n < len; n += 16) {
        const __mmask16 inside = (1u << std::min<I>(16, len - n)) - 1;
        const V e = exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(inside, weights + n), set(top)));
        _mm512_mask_storeu_ps(weights + n, inside, e);
    }
    for (I n = 0; n < len; n++) total += weights[n];
    for (I n = 0; n < len; n++) weights[n] /= total;
    for (I n = len; n < a.N; n++) weights[n] = 0.0f;
    context_of(len, a.E, a.values + b * up(a.N, 2) * a.E, weights, context);
}

// Scratch and sums of one thread's utterances.
template <typename S> struct Backward {
    std::vector<float> z, back, energies, flow;
    std::vector<S> rows, pairs;
    Backward(const Attention<S>& a)
        : z(up(a.N, 16) * a.A), back(up(a.N, 16) * WIDE), energies(up(a.N, 16)), flow(2 * (a.N + 64)), rows(up(a.N, 32) * a.A),
          pairs(up(a.N, 32) * a.A) {}
};

inline void lay_out(float* rows, float*, I, I A, I n, I c, V x, V y, bool is_pair) {
    store(rows + n * A + c, x);
    if (is_pair) store(rows + (n + 1) * A + c, y);
}
inline void lay_out(bf16* rows, bf16* pairs, I N, I A, I n, I c, V x, V y, bool is_pair) {
    store(rows + n * A + c, x);
    if (is_pair) store(rows + (n + 1) * A + c, y);
    put_pair(pairs + c / WIDE * up(N, 32) * WIDE + place<bf16>(n, c % WIDE), x, is_pair ? y : _mm512_setzero_ps());
}

// grad of the folded kernel [2, 32, A] += windows^T dz
inline void kernel_gradient(const Attention<float>& a, I len, const float* padded, const Backward<float>& s, float* grad) {
    for (I channel = 0; channel < 2; channel++)
        for (I tap = 0; tap < 32; tap += 4) {
            const float* w = padded + channel * a.L + tap;
            for (I c = 0; c < a.A; c += 64) {
                V sum[4][4];
                for (I i = 0; i < 4; i++)
                    for (int n = 0; n < 4; n++) sum[i][n] = load(grad + (channel * 32 + tap + i) * a.A + c + 16 * n);
                for (I n = 0; n < len; n++) {
                    const float* dz = s.rows.data() + n * a.A + c;
                    const V d0 = load(dz), d1 = load(dz + 16), d2 = load(dz + 32), d3 = load(dz + 48);
                    for (int i = 0; i < 4; i++) {
                        const V x = set(w[n + i]);
                        sum[i][0] = _mm512_fmadd_ps(x, d0, sum[i][0]), sum[i][1] = _mm512_fmadd_ps(x, d1, sum[i][1]);
                        sum[i][2] = _mm512_fmadd_ps(x, d2, sum[i][2]), sum[i][3] = _mm512_fmadd_ps(x, d3, sum[i][3]);
                    }
                }
                for (I i = 0; i < 4; i++)
                    for (int n = 0; n < 4; n++) store(grad + (channel * 32 + tap + i) * a.A + c + 16 * n, sum[i][n]);
            }
        }
}
inline void kernel_gradient(const Attention<bf16>& a, I len, const bf16* padded, const Backward<bf16>& s, float* grad) {
    for (I channel = 0; channel < 2; channel++)
        for (I c = 0; c < a.A; c += WIDE) {
            const bf16* dz = s.pairs.data() + c * up(a.N, 32);
            product(32, up(len, 32), padded + channel * a.L, 1, dz, grad + channel * 32 * a.A + c, a.A, true);
        }
}

// What a window's gradients [len, 64] send to the weights in it: flow [2, N + 64] by padded position.
inline void overlap(I len, I stride, const float* back, float* flow) {
    for (I channel = 0; channel < 2; channel++) {
        float* out = flow + channel * stride;
        V low = _mm512_setzero_ps(), high = low;
        for (I n = 0; n < len; n++) {
            low = _mm512_add_ps(low, load(back + n * WIDE + 32 * channel));
            high = _mm512_add_ps(high, load(back + n * WIDE + 32 * channel + 16));
            out[n] = _mm512_cvtss_f32(low);
            const __m512i l = _mm512_castps_si512(low), h = _mm512_castps_si512(high);
            low = _mm512_castsi512_ps(_mm512_alignr_epi32(h, l, 1));
            high = _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_setzero_si512(), h, 1));
        }
        store(out + len, low), store(out + len + 16, high);
    }
}

// One utterance, one step. `grad_weights` [N] holds what comes from elsewhere; gives dq [A] and, in s.flow, what goes to
// the weights of earlier steps; adds to the other gradients.
template <typename S>
void attend_backward(const Attention<S>& a, I b, bool has_history, const S* padded, const float* q, const float* weights,
                     const float* grad_context, const float* grad_weights, Backward<S>& s, float* grad_query, float* grad_keys,
                     float* grad_kernel, float* grad_v) {
    const I len = a.lengths[b];
    float *de = s.energies.data(), *z = s.z.data(), mean = 0.0f;
    dots_of(len, a.E, a.values + b * up(a.N, 2) * a.E, grad_context, de);
    for (I n = 0; n < len; n++) de[n] += grad_weights[n], mean += de[n] * weights[n];
    for (I n = 0; n < len; n++) de[n] = weights[n] * (de[n] - mean);
    sums_before_tanh(a, b, padded, q, z);
    std::fill(grad_query, grad_query + a.A, 0.0f);
    if (len % 32) std::fill(s.pairs.begin(), s.pairs.end(), (S)0);
    for (I n = 0; n < len; n += 2) {
        const bool is_pair = n + 1 < len;
        const V d0 = set(de[n]), d1 = set(is_pair ? de[n + 1] : 0.0f);
        for (I c = 0; c < a.A; c += 16) {
            const V v = load(a.v + c), x0 = tanh(load(z + n * a.A + c)), x1 = tanh(load(z + (n + is_pair) * a.A + c));
            const V y0 = _mm512_mul_ps(_mm512_mul_ps(d0, v), one_minus_square(x0));
            const V y1 = _mm512_mul_ps(_mm512_mul_ps(d1, v), one_minus_square(x1));
            store(grad_v + c, _mm512_fmadd_ps(d0, x0, _mm512_fmadd_ps(d1, x1, load(grad_v + c))));
            store(grad_query + c, _mm512_add_ps(load(grad_query + c), _mm512_add_ps(y0, y1)));
            float* keys = grad_keys + n * a.A + c;
            store(keys, _mm512_add_ps(load(keys), y0));
            if (is_pair) store(keys + a.A, _mm512_add_ps(load(keys + a.A), y1));
            lay_out(s.rows.data(), s.pairs.data(), a.N, a.A, n, c, y0, y1, is_pair);
        }
    }
    if (!has_history) return;
    kernel_gradient(a, len, padded, s, grad_kernel);
    product(len, a.A, s.rows.data(), a.A, a.kernel_back, s.back.data(), WIDE);
    overlap(len, a.N + 64, s.back.data(), s.flow.data());
}

}  // namespace

// ---- loops, as `kernels.native` calls them ---------------------------------------------------------------------

// All that any of the loops reads or writes; mirrored by `kernels.native.Arguments`. S is float or bf16. Buffers that
// products read row by row have so many rows behind their end as 16 utterances of each thread take.
struct Arguments {
    I n_threads, T, B, D, E, A, N, L, pad;
    const void *weight, *weight_back;        // packed: [K, 4D] by units, and [4D, K]
    const void *query, *query_back;          // packed: [D, A] and [A, D]
    const void *kernel, *kernel_back, *values;
    const void *bias, *v, *keys, *lengths;   // float [4D], [A], [B, N, A]; I [B]
    const void* mask;                        // S [T, B, D] or null
    void *gates, *states, *cells;            // S [T, B, 4D], [T + 1, B, K], [T + 1, B, D]
    void *alignments, *queries, *padded;     // float [T, B, N], [T, B, A]; S [T, B, 2, L]
    const void *grad_states, *grad_alignments;  // S [T, B, K], float [T, B, N]
    void *grad_gates, *grad_queries, *grad_contexts;  // S [T, B, 4D], [T, B, A], [T, B, E]
    void *grad_keys, *grad_kernel, *grad_v;  // float, zero at first: [B, N, A], [B, 2, 32, A], [B, A]
};

namespace {

template <typename S> Attention<S> attention_of(const Arguments& x) {
    return {x.B, x.D, x.E, x.A, x.N, x.L, (const S*)x.kernel, (const S*)x.kernel_back, (const float*)x.v,
            (const float*)x.keys, (const S*)x.values, (const I*)x.lengths};
}

template <typename S> void recurrent_forward(const Arguments& x) {
    const I B = x.B, D = x.D;
    S *gates = (S*)x.gates, *states = (S*)x.states, *cells = (S*)x.cells;
    std::vector<float> cell(B * D);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), units = D / 16;
        std::vector<float> sums(B * WIDE);
        Tiles tiles;
        for (I t = 0; t < x.T; t++) {
            units_forward<S>(B, D, D, units * id / n, units * (id + 1) / n, (const S*)x.weight, (const float*)x.bias,
                             states + t * B * D, gates + t * B * 4 * D, x.mask ? (const S*)x.mask + t * B * D : nullptr, cell.data(),
                             cells + (t + 1) * B * D, states + (t + 1) * B * D, sums.data());
#pragma omp barrier
        }
    }
}

template <typename S> void recurrent_backward(const Arguments& x) {
    const I B = x.B, D = x.D, panel = panel_rows<S>(4 * D) * WIDE;
    const S *gates = (S*)x.gates, *cells = (S*)x.cells, *incoming = (const S*)x.grad_states, *mask = (const S*)x.mask;
    S* grad = (S*)x.grad_gates;
    std::vector<float> grad_cell(B * D);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), panels = D / WIDE;
        std::vector<float> dh(B * WIDE);
        Tiles tiles;
        for (I t = x.T - 1; t >= 0; t--) {
            for (I p = panels * id / n; p < panels * (id + 1) / n; p++) {
                if (t + 1 < x.T)
                    product(B, 4 * D, grad + (t + 1) * B * 4 * D, 4 * D, (const S*)x.weight_back + p * panel, dh.data(), WIDE);
                for (I b = 0; b < B; b++)
                    for (I j = 0; j < WIDE; j += 16) {
                        const I unit = p * WIDE + j, at = (t * B + b) * D + unit;
                        const V sum = _mm512_add_ps(load(dh.data() + b * WIDE + j), load(incoming + at));
                        cell_backward<S>(sum, gates + (t * B + b) * 4 * D + unit, D, mask ? mask + at : nullptr, cells + at,
                                         cells + at + B * D, grad_cell.data() + b * D + unit, grad + (t * B + b) * 4 * D + unit);
                    }
            }
#pragma omp barrier
        }
    }
}

template <typename S> void attention_forward(const Arguments& x) {
    const Attention<S> a = attention_of<S>(x);
    const I B = x.B, D = x.D, E = x.E, A = x.A, N = x.N, K = D + E;
    S *gates = (S*)x.gates, *states = (S*)x.states, *cells = (S*)x.cells, *padded = (S*)x.padded;
    std::vector<float> cell(B * D), summed(B * N);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), units = D / 16, own = (B - id + n - 1) / n;
        std::vector<float> sums(B * WIDE), z(up(N, 16) * A), query(std::max<I>(own, 1) * A), context(E);
        Tiles tiles;
        for (I t = 0; t < x.T; t++) {
            S* next = states + (t + 1) * B * K;
            units_forward<S>(B, D, K, units * id / n, units * (id + 1) / n, (const S*)x.weight, (const float*)x.bias,
                             states + t * B * K, gates + t * B * 4 * D, x.mask ? (const S*)x.mask + t * B * D : nullptr, cell.data(),
                             cells + (t + 1) * B * D, next, sums.data());
#pragma omp barrier
            for (I p = 0; p < A / WIDE; p++)
                product(own, D, next + id * K, n * K, (const S*)x.query + p * panel_rows<S>(D) * WIDE, query.data() + p * WIDE, A);
            for (I i = 0, b = id; b < B; i++, b += n) {
                const I at = t * B + b;
                float *weights = (float*)x.alignments + at * N, *sum = summed.data() + b * N;
                memcpy((float*)x.queries + at * A, query.data() + i * A, A * 4);
                attend<S>(a, b, padded + at * 2 * x.L, query.data() + i * A, z.data(), weights, context.data());
                for (I e = 0; e < E; e += 16) store(next + b * K + D + e, load(context.data() + e));
                if (t + 1 == x.T) continue;
                S* later = padded + (at + B) * 2 * x.L + x.pad;
                for (I m = 0; m < N; m++) put(later + m, weights[m]), put(later + x.L + m, sum[m] += weights[m]);
            }
#pragma omp barrier
        }
    }
}

template <typename S> void attention_backward(const Arguments& x) {
    const Attention<S> a = attention_of<S>(x);
    const I B = x.B, D = x.D, E = x.E, A = x.A, N = x.N, K = D + E;
    const S *gates = (S*)x.gates, *cells = (S*)x.cells, *padded = (S*)x.padded, *incoming = (const S*)x.grad_states;
    S *grad = (S*)x.grad_gates, *grad_queries = (S*)x.grad_queries;
    std::vector<float> grad_cell(B * D), dx(B * K), to_last(B * N), to_summed(B * N);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), panels = K / WIDE, own = (B - id + n - 1) / n;
        std::vector<float> dh(std::max<I>(own, 1) * D), context(E), weights(N), query(A);
        Backward<S> scratch(a);
        Tiles tiles;
        for (I t = x.T - 1; t >= 0; t--) {
            if (t + 1 < x.T)
                for (I p = panels * id / n; p < panels * (id + 1) / n; p++)
                    product(B, 4 * D, grad + (t + 1) * B * 4 * D, 4 * D, (const S*)x.weight_back + p * panel_rows<S>(4 * D) * WIDE,
                            dx.data() + p * WIDE, K);
#pragma omp barrier
            for (I b = id; b < B; b += n) {
                const I at = t * B + b;
                float *last = to_last.data() + b * N, *summed = to_summed.data() + b * N;
                for (I e = 0; e < E; e += 16) {
                    const V sum = _mm512_add_ps(load(dx.data() + b * K + D + e), load(incoming + at * K + D + e));
                    store(context.data() + e, sum), store((S*)x.grad_contexts + at * E + e, sum);
                }
                for (I m = 0; m < N; m++) weights[m] = ((const float*)x.grad_alignments)[at * N + m] + last[m] + summed[m];
                attend_backward<S>(a, b, t > 0, padded + at * 2 * x.L, (float*)x.queries + at * A, (float*)x.alignments + at * N,
                                   context.data(), weights.data(), scratch, query.data(), (float*)x.grad_keys + b * N * A,
                                   (float*)x.grad_kernel + b * 64 * A, (float*)x.grad_v + b * A);
                for (I c = 0; c < A; c += 16) store(grad_queries + at * A + c, load(query.data() + c));
                const float* flow = scratch.flow.data() + x.pad;
                for (I m = 0; m < a.lengths[b]; m++) last[m] = flow[m], summed[m] += flow[N + 64 + m];
            }
            for (I p = 0; p < D / WIDE; p++)
                product(own, A, grad_queries + (t * B + id) * A, n * A, (const S*)x.query_back + p * panel_rows<S>(A) * WIDE,
                        dh.data() + p * WIDE, D);
            for (I i = 0, b = id; b < B; i++, b += n)
                for (I j = 0; j < D; j += 16) {
                    const I at = (t * B + b) * D + j, gate = (t * B + b) * 4 * D + j;
                    const V sum = _mm512_add_ps(load(dh.data() + i * D + j), load(dx.data() + b * K + j));
                    cell_backward<S>(_mm512_add_ps(sum, load(incoming + (t * B + b) * K + j)), gates + gate, D,
                                     x.mask ? (const S*)x.mask + at : nullptr, cells + at, cells + at + B * D,
                                     grad_cell.data() + b * D + j, grad + gate);
                }
#pragma omp barrier
        }
    }
}

// A weight is read from its first byte to its last in every step: with small pages that takes an eighth longer.
inline void ask_for_huge_pages(void* start, size_t bytes) {
    const size_t page = 2 << 20, first = ((size_t)start + page - 1) / page * page, last = ((size_t)start + bytes) / page * page;
    if (last > first) madvise((void*)first, last - first, MADV_HUGEPAGE);
}

// matrix [K, N] with any strides -> panels of 64 columns, zeros behind its end. With D the columns of panel u are the
// units 16u to 16u + 15 of four gates that lie D apart.
template <typename S> void packed(const float* matrix, I row, I column, I K, I N, I D, I n_threads, S* out) {
    const I panels = up(N, WIDE) / WIDE, rows = panel_rows<S>(K);
    ask_for_huge_pages(out, panels * rows * WIDE * sizeof(S));
#pragma omp parallel for num_threads(n_threads)
    for (I p = 0; p < panels; p++)
        for (I start = 0; start < rows; start += 32)  // blocks that fit the first-level cache, whatever the strides
            for (I c = 0; c < WIDE; c++) {
                const I from = D ? c / 16 * D + 16 * p + c % 16 : p * WIDE + c, stop = std::min(start + 32, rows);
                for (I k = start; k < stop; k++)
                    put(out + p * rows * WIDE + place<S>(k, c), k < K && from < N ? matrix[k * row + from * column] : 0.0f);
            }
}

}  // namespace

extern "C" {

// Asks the system for the matrix registers. -> whether the loops may run
int prepare() {
#ifdef __AMX_BF16__
    const int ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
    return 1;
#endif
}

void run_recurrent_forward(const Arguments* x, int half) { half ? recurrent_forward<bf16>(*x) : recurrent_forward<float>(*x); }
void run_recurrent_backward(const Arguments* x, int half) { half ? recurrent_backward<bf16>(*x) : recurrent_backward<float>(*x); }
void run_attention_forward(const Arguments* x, int half) { half ? attention_forward<bf16>(*x) : attention_forward<float>(*x); }
void run_attention_backward(const Arguments* x, int half) { half ? attention_backward<bf16>(*x) : attention_backward<float>(*x); }

void pack(const float* matrix, I row, I column, I K, I N, I D, I n_threads, void* out, int half) {
    if (half) packed<bf16>(matrix, row, column, K, N, D, n_threads, (bf16*)out);
    else packed<float>(matrix, row, column, K, N, D, n_threads, (float*)out);
}

}
