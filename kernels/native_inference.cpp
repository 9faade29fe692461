// Speech without a teacher: n steps of the whole decoder for the texts that still speak, as `kernels.inference` defines
// them; called by `kernels.native_inference`.
//
// A step uses each weight once, so reading weights is nearly all its cost. Those of the LSTMs are W: float, bf16 or int8;
// all else is float. Threads share units, columns and symbols; each number is summed by one thread in one order that depends
// neither on their number nor on how many texts speak.

#include <omp.h>
#include <sched.h>

#include <atomic>

#include "native_steps.h"
#include "native_vectors.h"

// All that a run of steps reads or writes; mirrored by `kernels.native_inference.InferenceArguments`. Weights are packed [in, out],
// those of LSTMs by units. `attended` [U] is what the text gives to a step: attention weights, if the products of every
// symbol are at hand (`by_symbol`), else the context. A state [S] is both hidden states and `attended`, a zero behind it.
struct InferenceArguments {
    I n_threads, n_steps, B, n_texts, N, L, pad, D, D_dec, E, A, U, n_mels, n_prenet, n_out, S, by_symbol;
    const float *first_layer, *second_layer;                // [n_mels, n_prenet], [n_prenet, n_prenet]
    const float *query, *out, *kernel, *v;                  // [D, A], [D_dec, n_out]; kernel and v as in training
    const void *from_prenet, *attention_recurrent;          // W [n_prenet, 4D], [D, 4D]
    const void *decoder_input, *decoder_recurrent;         // W [D, 4D_dec], [D_dec, 4D_dec]
    const void *to_attention, *to_decoder;                  // W [U, 4D], [U, 4D_dec]; by_symbol: for each text
    const float* to_out;                                    // [U, n_out]; by_symbol: for each text
    const float *bias, *decoder_bias, *out_bias;            // [4D], [4D_dec], [n_out]
    const float *keys, *values;                             // [n_texts, N, A], [n_texts, N rounded up to even, E]
    const I *lengths, *rows;                                // [n_texts], [B] the texts that speak
    const float* masks;                                     // [n_steps, 2, n_texts, n_prenet]
    float *states, *cells, *padded;                         // [n_steps + 1, n_texts, S], [n_texts, D + D_dec], [n_texts, 2, L]
    float *outputs, *alignments;                            // [n_steps, n_texts, n_out], [n_steps, n_texts, N]
};

namespace {

// A part of a step that threads share. Each takes the next piece when it is free, so one that has lost its processor holds
// the others up by no more than a piece; they go on when all is done, not when all are there. `prepare` is what a thread
// does before its first piece.
class Phase {
  public:
    template <typename Prepare, typename Work> void share(I total, I piece, Prepare prepare, Work work) {
        bool is_ready = false;
        for (I first; (first = next.fetch_add(piece)) < total; is_ready = true) {
            if (!is_ready) prepare();
            const I last = std::min(first + piece, total);
            for (I i = first; i < last; i++) work(i);
            done.fetch_add(last - first);
        }
        for (I waited = 0; done.load() < total; waited++) waited < PAUSES ? pause() : (void)sched_yield();
    }
    template <typename Work> void share(I total, Work work) {
        share(total, 1, [] {}, work);
    }

  private:
    static const I PAUSES = 1000;  // some ten microseconds
    alignas(64) std::atomic<I> next{0};
    alignas(64) std::atomic<I> done{0};
};

const I PHASES = 7, UNITS = 2, SYMBOLS = 12;  // of a step; panels of units, and symbols, that a thread takes at once

// Of one thread.
template <typename W> struct Scratch {
    Rows<W> hidden, decoder_hidden, attended;
    SparseRows<W> prenet_out;
    std::vector<float> sums, z;
    explicit Scratch(const InferenceArguments& x) : sums(x.B * WIDE), z(SYMBOLS * x.A) {}
};

template <typename W> class InferenceRun {
  public:
    explicit InferenceRun(const InferenceArguments& arguments)
        : x(arguments), text{x.n_texts, x.D, x.E, x.A, x.N, x.L, x.kernel, nullptr, x.v, x.keys, x.values, x.lengths},
          blocks((x.N + SYMBOLS - 1) / SYMBOLS), phases(PHASES * x.n_steps), P(up(x.n_prenet, WIDE)),
          prenet_out(x.B * P), queries(x.B * x.A), energies(x.B * x.N) {}

    void run() {
        Scratch<W> own(x);
        for (I t = 0; t < x.n_steps; t++) {
            Phase* phase = phases.data() + PHASES * t;
            const auto read_inputs = [&] {
                own.prenet_out.read(x.B, x.n_prenet, prenet_out.data(), P), own.hidden.read(x.B, x.D, hidden(t), x.S);
                own.attended.read(x.B, x.U, attended(t), x.S);
            };
            const auto read_states = [&] {
                own.hidden.read(x.B, x.D, hidden(t + 1), x.S), own.decoder_hidden.read(x.B, x.D_dec, decoder_hidden(t), x.S);
                own.attended.read(x.B, x.U, attended(t + 1), x.S);
            };
            phase[0].share(x.B, [&](I slot) { run_prenet(t, slot); });
            phase[1].share(x.D / 16, UNITS, read_inputs, [&](I u) { attention_units(t, u, own); });
            phase[2].share(x.A / 16, [&](I g) { query_columns(t, g); });
            phase[3].share(x.B * blocks, [&](I i) { energies_of_symbols(i / blocks, i % blocks * SYMBOLS, own.z.data()); });
            phase[4].share(x.B, [&](I slot) { attend(t, slot); });
            phase[5].share(x.D_dec / 16, UNITS, read_states, [&](I u) { decoder_units(t, u, own); });
            phase[6].share(up(x.n_out, 16) / 16, [&](I g) { output_columns(t, g); });
        }
    }

  private:
    const InferenceArguments& x;
    const Attention<float> text;
    const I blocks;  // of symbols in a text
    std::vector<Phase> phases;
    const I P;  // elements of a row of `prenet_out`, zeros behind its end
    std::vector<float> prenet_out, queries, energies;

    float* hidden(I t) { return x.states + t * x.n_texts * x.S; }
    float* decoder_hidden(I t) { return hidden(t) + x.D; }
    float* attended(I t) { return decoder_hidden(t) + x.D_dec; }

    // The prenet hears the last frame said; before the first step that of the run before.
    void run_prenet(I t, I slot) {
        const I b = x.rows[slot], before = t ? t - 1 : x.n_steps - 1;
        const float* mask = x.masks + (t * 2 * x.n_texts + b) * x.n_prenet;
        float* out = prenet_out.data() + slot * P;
        Chosen chosen;
        chosen.take(x.n_mels, x.outputs + (before * x.n_texts + b) * x.n_out + x.n_out - 1 - x.n_mels);
        layer(chosen, x.first_layer, x.n_mels, mask, out);
        chosen.take(x.n_prenet, out);
        layer(chosen, x.second_layer, x.n_prenet, mask + x.n_texts * x.n_prenet, out);
    }

    void layer(const Chosen& in, const float* weight, I rows, const float* mask, float* out) {
        std::fill(out, out + P, 0.0f);
        for (I p = 0; p < P; p += WIDE) in.add(weight + p * rows, out + p);
        for (I c = 0; c < x.n_prenet; c += 16) {
            const V kept = load_first(mask + c, x.n_prenet - c);
            store(out + c, maximum(zero(), load(out + c)) * kept);
        }
    }

    // 16 units of the attention LSTM.
    void attention_units(I t, I u, Scratch<W>& own) {
        multiply(x.B, x.D, own.hidden, (const W*)x.attention_recurrent + u * panel_size<W>(x.D), own.sums.data(), false);
        add_attended(own.attended, (const W*)x.to_attention, x.D / 16, u, own.sums.data());
        for (I slot = 0; slot < x.B; slot++) {
            float* sums = own.sums.data() + slot * WIDE;
            multiply_row(x.n_prenet, own.prenet_out, slot, (const W*)x.from_prenet + u * panel_size<W>(x.n_prenet), sums, true);
            step_unit(sums, x.bias + 16 * u, x.D, x.cells + slot * (x.D + x.D_dec) + 16 * u, hidden(t + 1) + slot * x.S + 16 * u);
        }
    }

    // 16 columns of the query.
    void query_columns(I t, I g) {
        for (I slot = 0; slot < x.B; slot++)
            store(queries.data() + slot * x.A + 16 * g, columns(x.D, hidden(t + 1) + slot * x.S, group_of(x.query, x.D, g)));
    }

    // Energies of some symbols.
    void energies_of_symbols(I slot, I first, float* z) {
        const I b = x.rows[slot], n = std::min(SYMBOLS, x.lengths[b] - first);
        if (n > 0) energies_of(text, b, first, n, x.padded + slot * 2 * x.L, queries.data() + slot * x.A, z, energies.data() + slot * x.N + first);
    }

    // Weights of one text, and what it gives to the step.
    void attend(I t, I slot) {
        const I b = x.rows[slot], len = x.lengths[b];
        float *weights = x.alignments + (t * x.n_texts + b) * x.N, *given = attended(t + 1) + slot * x.S;
        float *last = x.padded + slot * 2 * x.L + x.pad, *summed = last + x.L;
        memcpy(weights, energies.data() + slot * x.N, len * sizeof(float));
        softmax(len, x.N, weights);
        for (I n = 0; n < len; n++) last[n] = weights[n], summed[n] += weights[n];
        if (x.by_symbol) std::copy(weights, weights + x.N, given);
        else context_of(len, x.E, x.values + b * up(x.N, 2) * x.E, weights, given);
    }

    // 16 units of the decoder LSTM.
    void decoder_units(I t, I u, Scratch<W>& own) {
        multiply(x.B, x.D, own.hidden, (const W*)x.decoder_input + u * panel_size<W>(x.D), own.sums.data(), false);
        multiply(x.B, x.D_dec, own.decoder_hidden, (const W*)x.decoder_recurrent + u * panel_size<W>(x.D_dec), own.sums.data(), true);
        add_attended(own.attended, (const W*)x.to_decoder, x.D_dec / 16, u, own.sums.data());
        for (I slot = 0; slot < x.B; slot++)
            step_unit(own.sums.data() + slot * WIDE, x.decoder_bias + 16 * u, x.D_dec, x.cells + slot * (x.D + x.D_dec) + x.D + 16 * u,
                      decoder_hidden(t + 1) + slot * x.S + 16 * u);
    }

    // 16 columns of frames and gate.
    void output_columns(I t, I g) {
        const I panels = up(x.n_out, WIDE) / WIDE;
        for (I slot = 0; slot < x.B; slot++) {
            const I b = x.rows[slot];
            const float* to_out = x.to_out + (x.by_symbol ? b * panels * panel_size<float>(x.U) : 0);
            V sum = load_first(x.out_bias + 16 * g, x.n_out - 16 * g);
            sum = sum + columns(x.D_dec, decoder_hidden(t + 1) + slot * x.S, group_of(x.out, x.D_dec, g));
            sum = sum + columns(x.U, attended(t + 1) + slot * x.S, group_of(to_out, x.U, g));
            store_first(x.outputs + (t * x.n_texts + b) * x.n_out + 16 * g, x.n_out - 16 * g, sum);
        }
    }

    // sums [B, 64] += attended times panel u of one table for all, or of each text's own
    void add_attended(const Rows<W>& attended, const W* table, I panels, I u, float* sums) {
        if (!x.by_symbol) return multiply(x.B, x.U, attended, table + u * panel_size<W>(x.U), sums, true);
        for (I slot = 0; slot < x.B; slot++)
            multiply_row(x.U, attended, slot, table + (x.rows[slot] * panels + u) * panel_size<W>(x.U), sums + slot * WIDE, true);
    }

    // sums [64] of 16 units' gates; gates of the bias D apart
    static void step_unit(const float* sums, const float* bias, I D, float* cell, float* hidden) {
        V gates[4];
        for (int g = 0; g < 4; g++) gates[g] = load(sums + 16 * g) + load(bias + g * D);
        store(hidden, advance(gates, cell));
    }
};

template <typename W> void run(const InferenceArguments& arguments) {
    InferenceRun<W> inference(arguments);
#pragma omp parallel num_threads(arguments.n_threads)
    inference.run();
}

}  // namespace

extern "C" void run_inference(const InferenceArguments* x, int bytes) {
    if (bytes == 4) run<float>(*x);
    if (bytes == 2) run<bf16>(*x);
#ifdef __AVX512VNNI__
    if (bytes == 1) run<int8_t>(*x);
#endif
}
