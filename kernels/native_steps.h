// One step of the decoder's two LSTMs and of its attention, forward and backward, for some units or one utterance.

#pragma once

#include <vector>

#include "native_products.h"

namespace {

// ---- LSTM cell -------------------------------------------------------------------------------------------------

// x times scale where the mask is 1, else 0
INLINED V kept(V x, const uint8_t* mask, float scale) {
    return x * (from_bytes(mask) * set(scale));
}

// Sums of 16 units' four gates become their activations, and the cell moves on. -> the hidden state
INLINED V advance(V gates[4], float* cell) {
    gates[0] = sigmoid(gates[0]), gates[1] = sigmoid(gates[1]), gates[2] = tanh(gates[2]), gates[3] = sigmoid(gates[3]);
    const V c = fmadd(gates[1], load(cell), gates[0] * gates[2]);
    store(cell, c);
    return gates[3] * tanh(c);
}

// `sums` hold 16 units' gates, each 16 apart. All pointers at the unit; gates D apart.
template <typename S>
inline void cell_forward(const float* sums, const float* bias, S* gates, I D, const uint8_t* mask, float scale, float* cell, S* saved, S* hidden) {
    V a[4];
    for (int g = 0; g < 4; g++)
        a[g] = load(sums + 16 * g) + load(bias + g * D) + load(gates + g * D);
    V h = advance(a, cell);
    if (mask) h = kept(h, mask, scale);
    store(saved, load(cell)), store(hidden, h);
    for (int g = 0; g < 4; g++) store(gates + g * D, a[g]);
}

template <typename S>
INLINED void cell_backward(V dh, const S* gates, I D, const uint8_t* mask, float scale, const S* before, const S* cell, float* grad_cell, S* grad) {
    const V i = load(gates), f = load(gates + D), g = load(gates + 2 * D), o = load(gates + 3 * D);
    const V t = tanh(load(cell)), one = set(1.0f);
    if (mask) dh = kept(dh, mask, scale);
    const V dc = fmadd(dh * o, one_minus_square(t), load(grad_cell));
    store(grad_cell, dc * f);
    store(grad, dc * g * (i * (one - i)));
    store(grad + D, dc * load(before) * (f * (one - f)));
    store(grad + 2 * D, dc * i * one_minus_square(g));
    store(grad + 3 * D, dh * t * (o * (one - o)));
}

// One step of an LSTM for the units of this thread, which reads K numbers of each row of `width` and writes D of the next.
// Panel u holds the four gates of units 16u to 16u + 15.
template <typename S>
void units_forward(I B, I D, I K, I width, I first, I last, const S* weight, const float* bias, const S* input, S* gates,
                   const uint8_t* mask, float scale, float* cell, S* saved, S* hidden, float* sums) {
    for (I u = first; u < last; u++) {
        product(B, K, input, width, weight + u * panel_rows<S>(K) * WIDE, sums, WIDE);
        for (I b = 0; b < B; b++)
            cell_forward<S>(sums + b * WIDE, bias + 16 * u, gates + b * 4 * D + 16 * u, D, mask ? mask + b * D + 16 * u : nullptr, scale,
                            cell + b * D + 16 * u, saved + b * D + 16 * u, hidden + b * width + 16 * u);
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

// z [n, A] of the symbols first to first + n = location features + query + keys
template <typename S> void sums_before_tanh(const Attention<S>& a, I b, I first, I n, const S* padded, const float* q, float* z) {
    const I n_panels = a.A / WIDE;
    for (I p = 0; p < n_panels; p++) {
        product(n, 32, padded + first, 1, a.kernel + p * 32 * WIDE, z + p * WIDE, a.A);
        product(n, 32, padded + a.L + first, 1, a.kernel + (n_panels + p) * 32 * WIDE, z + p * WIDE, a.A, true);
    }
    const float* keys = a.keys + (b * a.N + first) * a.A;
    for (I i = 0; i < n; i++)
        for (I c = 0; c < a.A; c += 16) {
            float* p = z + i * a.A + c;
            store(p, load(p) + (load(q + c) + load(keys + i * a.A + c)));
        }
}

// energies [n] of the symbols first to first + n. z scratch [up16(n), A].
template <typename S> void energies_of(const Attention<S>& a, I b, I first, I n, const S* padded, const float* q, float* z, float* energies) {
    sums_before_tanh(a, b, first, n, padded, q, z);
    for (I i = 0; i < n; i++) {
        V e = zero();
        for (I c = 0; c < a.A; c += 16) e = fmadd(tanh(load(z + i * a.A + c)), load(a.v + c), e);
        energies[i] = sum_of(e);
    }
}

// Energies [len] become weights [N], zero behind the text.
inline void softmax(I len, I N, float* weights) {
    const float top = len ? *std::max_element(weights, weights + len) : 0.0f;
    float total = 0.0f;
    for (I n = 0; n < len; n += 16) {
        const V e = exp(load_first(weights + n, len - n) - set(top));
        store_first(weights + n, len - n, e);
    }
    for (I n = 0; n < len; n++) total += weights[n];
    for (I n = 0; n < len; n++) weights[n] /= total;
    std::fill(weights + len, weights + N, 0.0f);
}

inline void context_of(I len, I E, const float* values, const float* w, float* out) {
    for (I e = 0; e < E; e += 64) {
        V s0 = zero(), s1 = s0, s2 = s0, s3 = s0;
        for (I n = 0; n < len; n++) {
            const float* p = values + n * E + e;
            const V x = set(w[n]);
            s0 = fmadd(x, load(p), s0), s1 = fmadd(x, load(p + 16), s1);
            s2 = fmadd(x, load(p + 32), s2), s3 = fmadd(x, load(p + 48), s3);
        }
        store(out + e, s0), store(out + e + 16, s1), store(out + e + 32, s2), store(out + e + 48, s3);
    }
}
inline void context_of(I len, I E, const bf16* values, const float* w, float* out) {
    for (I e = 0; e < E; e += 64) {
        V sum[4] = {zero(), zero(), zero(), zero()};
        for (I n = 0; n < len; n += 2) {
            const V first = set(w[n]), second = set(n + 1 < len ? w[n + 1] : 0.0f);
            for (int i = 0; i < 4; i++) {
                const Pairs pair = load_pairs(values + n * E + 2 * (e + 16 * i));
                sum[i] = fmadd(first, even_of(pair), fmadd(second, odd_of(pair), sum[i]));
            }
        }
        for (int i = 0; i < 4; i++) store(out + e + 16 * i, sum[i]);
    }
}

// dots [len] = values [len, E] x
inline void dots_of(I len, I E, const float* values, const float* x, float* dots) {
    for (I n = 0; n < len; n++) {
        V s0 = zero(), s1 = s0;
        for (I e = 0; e < E; e += 32) {
            s0 = fmadd(load(values + n * E + e), load(x + e), s0);
            s1 = fmadd(load(values + n * E + e + 16), load(x + e + 16), s1);
        }
        dots[n] = sum_of(s0 + s1);
    }
}
inline void dots_of(I len, I E, const bf16* values, const float* x, float* dots) {
    for (I n = 0; n < len; n += 2) {
        V s0 = zero(), s1 = s0;
        for (I e = 0; e < E; e += 16) {
            const Pairs pair = load_pairs(values + n * E + 2 * e);
            s0 = fmadd(even_of(pair), load(x + e), s0), s1 = fmadd(odd_of(pair), load(x + e), s1);
        }
        dots[n] = sum_of(s0);
        if (n + 1 < len) dots[n + 1] = sum_of(s1);
    }
}

// One utterance, one step: weights [N] and the context. z scratch [up16(N), A].
template <typename S>
void attend(const Attention<S>& a, I b, const S* padded, const float* q, float* z, float* weights, float* context) {
    const I len = a.lengths[b];
    energies_of(a, b, 0, len, padded, q, z, weights);
    softmax(len, a.N, weights);
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

INLINED void lay_out(float* rows, float*, I, I A, I n, I c, V x, V y, bool is_pair) {
    store(rows + n * A + c, x);
    if (is_pair) store(rows + (n + 1) * A + c, y);
}
INLINED void lay_out(bf16* rows, bf16* pairs, I N, I A, I n, I c, V x, V y, bool is_pair) {
    store(rows + n * A + c, x);
    if (is_pair) store(rows + (n + 1) * A + c, y);
    store_pairs(pairs + c / WIDE * up(N, 32) * WIDE + place<bf16>(n, c % WIDE), x, is_pair ? y : zero());
}

// grad of the folded kernel [2, 32, A] += windows^T dz
inline void kernel_gradient(const Attention<float>& a, I len, const float* padded, const Backward<float>& s, float* grad) {
    for (I channel = 0; channel < 2; channel++)
        for (I c = 0; c < a.A; c += WIDE)
            product_with_rows(32, len, padded + channel * a.L, 1, s.rows.data() + c, a.A, grad + channel * 32 * a.A + c, a.A, true);
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
        V low = zero(), high = low;
        for (I n = 0; n < len; n++) {
            low = low + load(back + n * WIDE + 32 * channel);
            high = high + load(back + n * WIDE + 32 * channel + 16);
            out[n] = first_of(low);
            shift_down(low, high);
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
    sums_before_tanh(a, b, 0, len, padded, q, z);
    std::fill(grad_query, grad_query + a.A, 0.0f);
    if (len % 32) std::fill(s.pairs.begin(), s.pairs.end(), (S)0);
    for (I n = 0; n < len; n += 2) {
        const bool is_pair = n + 1 < len;
        const V d0 = set(de[n]), d1 = set(is_pair ? de[n + 1] : 0.0f);
        for (I c = 0; c < a.A; c += 16) {
            const V v = load(a.v + c), x0 = tanh(load(z + n * a.A + c)), x1 = tanh(load(z + (n + is_pair) * a.A + c));
            const V y0 = d0 * v * one_minus_square(x0);
            const V y1 = d1 * v * one_minus_square(x1);
            store(grad_v + c, fmadd(d0, x0, fmadd(d1, x1, load(grad_v + c))));
            store(grad_query + c, load(grad_query + c) + (y0 + y1));
            float* keys = grad_keys + n * a.A + c;
            store(keys, load(keys) + y0);
            if (is_pair) store(keys + a.A, load(keys + a.A) + y1);
            lay_out(s.rows.data(), s.pairs.data(), a.N, a.A, n, c, y0, y1, is_pair);
        }
    }
    if (!has_history) return;
    kernel_gradient(a, len, padded, s, grad_kernel);
    product(len, a.A, s.rows.data(), a.A, a.kernel_back, s.back.data(), WIDE);
    overlap(len, a.N + 64, s.back.data(), s.flow.data());
}

}  // namespace
