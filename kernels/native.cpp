// The decoder's two step loops, forward and backward, as `kernels.decoder_autograd` defines them; compiled and called by `kernels.native`.
//
// S is the type that is stored: float, or bf16 with sums in fp32. Threads share the units of an LSTM in products with
// its weight, and the utterances of a batch in attention; each number is summed by one thread in one order, so results
// do not depend on how many threads there are.

#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native_steps.h"

// All that any of the loops reads or writes; mirrored by `kernels.native.Arguments`. S is float or bf16. Buffers that
// products read row by row have so many rows behind their end as 16 utterances of each thread take.
struct Arguments {
    I n_threads, T, B, D, E, A, N, L, pad, K;  // K: width of a row of states, whose first D are hidden
    I start;  // number of the first of the T steps
    const void *weight, *weight_back;        // packed: [K, 4D] by units, and [4D, K]
    const void *query, *query_back;          // packed: [D, A] and [A, D]
    const void *kernel, *kernel_back, *values;
    const void *bias, *v, *keys, *lengths;   // float [4D], [A], [B, N, A]; I [B]
    const uint8_t* mask;                     // [T, B, D] 1 where a hidden unit is kept, or null
    void *gates, *states, *cells;            // S [T, B, 4D], [T + 1, B, K], [T + 1, B, D]
    void *alignments, *queries, *padded;     // float [T, B, N], [T, B, A]; S [T, B, 2, L]
    const void *grad_states, *grad_alignments;  // S [T, B, K], float [T, B, N]
    void *grad_gates, *grad_queries, *grad_contexts;  // S [T + 1, B, 4D], the last step given; [T, B, A], [T, B, E]
    void *grad_keys, *grad_kernel, *grad_v;  // float, zero at first: [B, N, A], [B, 2, 32, A], [B, A]
    void *grad_cell, *to_last, *to_summed;   // float, zero at first: what later steps send back, [B, D], [B, N], [B, N]
    double scale;                            // of kept units
};

namespace {

template <typename S> Attention<S> attention_of(const Arguments& x) {
    return {x.B, x.D, x.E, x.A, x.N, x.L, (const S*)x.kernel, (const S*)x.kernel_back, (const float*)x.v,
            (const float*)x.keys, (const S*)x.values, (const I*)x.lengths};
}

template <typename S> void recurrent_forward(const Arguments& x) {
    const I B = x.B, D = x.D, K = x.K;
    S *gates = (S*)x.gates, *states = (S*)x.states, *cells = (S*)x.cells;
    std::vector<float> cell(B * D);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), units = D / 16;
        std::vector<float> sums(B * WIDE);
        Tiles tiles;
        for (I t = 0; t < x.T; t++) {
            units_forward<S>(B, D, D, K, units * id / n, units * (id + 1) / n, (const S*)x.weight, (const float*)x.bias,
                             states + t * B * K, gates + t * B * 4 * D, x.mask ? x.mask + t * B * D : nullptr, x.scale, cell.data(),
                             cells + (t + 1) * B * D, states + (t + 1) * B * K, sums.data());
#pragma omp barrier
        }
    }
}

template <typename S> void recurrent_backward(const Arguments& x) {
    const I B = x.B, D = x.D, K = x.K, panel = panel_rows<S>(4 * D) * WIDE;
    const S *gates = (S*)x.gates, *cells = (S*)x.cells, *incoming = (const S*)x.grad_states;
    S* grad = (S*)x.grad_gates;
    float* grad_cell = (float*)x.grad_cell;
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), panels = D / WIDE;
        std::vector<float> dh(B * WIDE);
        Tiles tiles;
        for (I t = x.T - 1; t >= 0; t--) {
            for (I p = panels * id / n; p < panels * (id + 1) / n; p++) {
                product(B, 4 * D, grad + (t + 1) * B * 4 * D, 4 * D, (const S*)x.weight_back + p * panel, dh.data(), WIDE);
                for (I b = 0; b < B; b++)
                    for (I j = 0; j < WIDE; j += 16) {
                        const I unit = p * WIDE + j, at = (t * B + b) * D + unit;
                        const V sum = load(dh.data() + b * WIDE + j) + load(incoming + (t * B + b) * K + unit);
                        cell_backward<S>(sum, gates + (t * B + b) * 4 * D + unit, D, x.mask ? x.mask + at : nullptr, x.scale, cells + at,
                                         cells + at + B * D, grad_cell + b * D + unit, grad + (t * B + b) * 4 * D + unit);
                    }
            }
#pragma omp barrier
        }
    }
}

template <typename S> void attention_forward(const Arguments& x) {
    const Attention<S> a = attention_of<S>(x);
    const I B = x.B, D = x.D, E = x.E, A = x.A, N = x.N, K = x.K;
    S *gates = (S*)x.gates, *states = (S*)x.states, *cells = (S*)x.cells, *padded = (S*)x.padded;
    std::vector<float> cell(B * D), summed(B * N);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), units = D / 16, own = (B - id + n - 1) / n;
        std::vector<float> sums(B * WIDE), z(up(N, 16) * A), query(std::max<I>(own, 1) * A), context(E);
        Tiles tiles;
        for (I t = 0; t < x.T; t++) {
            S* next = states + (t + 1) * B * K;
            units_forward<S>(B, D, K, K, units * id / n, units * (id + 1) / n, (const S*)x.weight, (const float*)x.bias,
                             states + t * B * K, gates + t * B * 4 * D, x.mask ? x.mask + t * B * D : nullptr, x.scale, cell.data(),
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
    const I B = x.B, D = x.D, E = x.E, A = x.A, N = x.N, K = x.K;
    const S *gates = (S*)x.gates, *cells = (S*)x.cells, *padded = (S*)x.padded, *incoming = (const S*)x.grad_states;
    S *grad = (S*)x.grad_gates, *grad_queries = (S*)x.grad_queries;
    float *grad_cell = (float*)x.grad_cell, *to_last = (float*)x.to_last, *to_summed = (float*)x.to_summed;
    std::vector<float> dx(B * K);
#pragma omp parallel num_threads(x.n_threads)
    {
        const I n = omp_get_num_threads(), id = omp_get_thread_num(), panels = K / WIDE, own = (B - id + n - 1) / n;
        std::vector<float> dh(std::max<I>(own, 1) * D), context(E), weights(N), query(A);
        Backward<S> scratch(a);
        Tiles tiles;
        for (I t = x.T - 1; t >= 0; t--) {
            for (I p = panels * id / n; p < panels * (id + 1) / n; p++)
                product(B, 4 * D, grad + (t + 1) * B * 4 * D, 4 * D, (const S*)x.weight_back + p * panel_rows<S>(4 * D) * WIDE,
                        dx.data() + p * WIDE, K);
#pragma omp barrier
            for (I b = id; b < B; b += n) {
                const I at = t * B + b;
                float *last = to_last + b * N, *summed = to_summed + b * N;
                for (I e = 0; e < E; e += 16) {
                    const V sum = load(dx.data() + b * K + D + e) + load(incoming + at * K + D + e);
                    store(context.data() + e, sum), store((S*)x.grad_contexts + at * E + e, sum);
                }
                for (I m = 0; m < N; m++) weights[m] = ((const float*)x.grad_alignments)[at * N + m] + last[m] + summed[m];
                attend_backward<S>(a, b, x.start + t > 0, padded + at * 2 * x.L, (float*)x.queries + at * A, (float*)x.alignments + at * N,
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
                    const V sum = load(dh.data() + i * D + j) + load(dx.data() + b * K + j);
                    cell_backward<S>(sum + load(incoming + (t * B + b) * K + j), gates + gate, D,
                                     x.mask ? x.mask + at : nullptr, x.scale, cells + at, cells + at + B * D,
                                     grad_cell + b * D + j, grad + gate);
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

// Two rows of 16 columns -> their place in a panel; floats take one row at a time.
INLINED void lay(float* p, V row, V) { store(p, row); }
INLINED void lay(bf16* p, V row, V next) { store_pairs(p, row, next); }
template <typename S> const I ROWS_LAID = sizeof(S) == 2 ? 2 : 1;

// matrix [K, N] with any strides -> panels of 64 columns, zeros behind its end. With D the columns of panel u are the
// units 16u to 16u + 15 of four gates that lie D apart. ALONG: columns lie side by side; else rows do, and whole lines are
// read of few columns at once.
template <typename S, bool ALONG> void packed(const float* matrix, I row, I column, I K, I N, I D, I n_threads, S* out) {
    const I panels = up(N, WIDE) / WIDE, rows = panel_rows<S>(K), block = ALONG ? ROWS_LAID<S> : 16;
    ask_for_huge_pages(out, panels * rows * WIDE * sizeof(S));
#pragma omp parallel for num_threads(n_threads)
    for (I p = 0; p < panels; p++)
        for (I start = 0; start < rows; start += block)
            for (I c = 0; c < WIDE; c += 16) {
                const I from = D ? c / 16 * D + 16 * p : p * WIDE + c, width = std::clamp<I>(N - from, 0, 16);
                const auto at = [&](I k) {
                    const float* first = matrix + k * row + from * column;
                    const I inside = k < K ? width : 0;
                    if constexpr (ALONG) return load_first(first, inside);
                    else return gather_first(first, column, inside);
                };
                for (I k = start; k < std::min(start + block, rows); k += ROWS_LAID<S>)
                    lay(out + p * rows * WIDE + place<S>(k, c), at(k), at(k + 1));
            }
}

template <typename S> void packed(const float* matrix, I row, I column, I K, I N, I D, I n_threads, S* out) {
    if (column == 1) packed<S, true>(matrix, row, column, K, N, D, n_threads, out);
    else packed<S, false>(matrix, row, column, K, N, D, n_threads, out);
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
