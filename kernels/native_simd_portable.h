// The vocabulary of `native_simd.h` in the compiler's own vectors: a vector is as many registers as 16 floats take, two on
// AVX2, four on NEON.

#pragma once

namespace {

#ifdef __AVX__
const int LANES = 8;
#else
const int LANES = 4;
#endif
const int PARTS = 16 / LANES;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint32_t WordsAnywhere __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

struct V {
    Floats part[PARTS];
};
struct Pairs {  // 16 pairs of bf16, the even one in the low half of each word
    Words part[PARTS];
};

// Sums of 6 rows of a product fill 12 of 16 registers on AVX2, 24 of 32 on NEON.
constexpr int vectors_of(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

// What `of` says of each part.
template <typename Of> INLINED V each(Of of) {
    V result;
    for (int i = 0; i < PARTS; i++) result.part[i] = of(i);
    return result;
}
template <typename T> INLINED T part_of(const void* p, int part) {
    T x;
    memcpy(&x, (const char*)p + part * sizeof(T), sizeof(T));
    return x;
}

INLINED V set(float x) {
    return each([&](int) { return x - Floats{}; });
}
INLINED V zero() { return set(0.0f); }
INLINED V load(const float* p) {
    return each([&](int i) { return ((const Anywhere*)p)[i]; });
}
INLINED void store(float* p, V x) {
    for (int i = 0; i < PARTS; i++) ((Anywhere*)p)[i] = x.part[i];
}
INLINED V load_first(const float* p, I n) {
    if (n >= 16) return load(p);
    V x = zero();
    if (n > 0) memcpy(&x, p, n * sizeof(float));
    return x;
}
INLINED void store_first(float* p, I n, V x) {
    if (n >= 16) return store(p, x);
    if (n > 0) memcpy(p, &x, n * sizeof(float));
}
INLINED V from_bytes(const uint8_t* p) {
    return each([&](int i) { return __builtin_convertvector(__builtin_convertvector(part_of<Bytes>(p, i), Ints), Floats); });
}
INLINED V gather_first(const float* p, I stride, I n) {
    float x[16] = {};
    for (I i = 0; i < std::min<I>(n, 16); i++) x[i] = p[i * stride];
    return load(x);
}

INLINED V operator+(V x, V y) {
    return each([&](int i) { return x.part[i] + y.part[i]; });
}
INLINED V operator-(V x, V y) {
    return each([&](int i) { return x.part[i] - y.part[i]; });
}
INLINED V operator*(V x, V y) {
    return each([&](int i) { return x.part[i] * y.part[i]; });
}
INLINED V fmadd(V x, V y, V z) {
    return each([&](int i) { return x.part[i] * y.part[i] + z.part[i]; });
}
INLINED V fnmadd(V x, V y, V z) {
    return each([&](int i) { return z.part[i] - x.part[i] * y.part[i]; });
}
INLINED V minimum(V x, V y) {
    return each([&](int i) { return x.part[i] < y.part[i] ? x.part[i] : y.part[i]; });
}
INLINED V maximum(V x, V y) {
    return each([&](int i) { return x.part[i] > y.part[i] ? x.part[i] : y.part[i]; });
}
INLINED V to_whole(V x) {  // of numbers under 2^22: adding this one pushes the fraction out
    const float shift = 12582912.0f;
    return each([&](int i) { return x.part[i] + shift - shift; });
}
INLINED V times_power_of_two(V x, V n) {
    return each([&](int i) { return x.part[i] * (Floats)((__builtin_convertvector(n.part[i], Ints) + 127) << 23); });
}
INLINED V reciprocal(V x) {
    return each([&](int i) { return 1.0f / x.part[i]; });
}
INLINED float sum_of(V x) {
    Floats sum = x.part[0];
    for (int i = 1; i < PARTS; i++) sum += x.part[i];
    float total = 0.0f;
    for (int i = 0; i < LANES; i++) total += sum[i];
    return total;
}
INLINED float first_of(V x) { return x.part[0][0]; }

INLINED void shift_down(V& low, V& high) {
    float both[33];
    store(both, low), store(both + 16, high), both[32] = 0.0f;
    low = load(both + 1), high = load(both + 17);
}

INLINED I choose(V x, I first, float* values, int32_t* places) {
    float all[16];
    store(all, x);
    I n = 0;
    for (I i = 0; i < 16; i++) values[n] = all[i], places[n] = first + i, n += all[i] != 0.0f;
    return n;
}

// ---- bf16

INLINED Words rounded(Floats x) {  // in the low half of each word
    const Words u = (Words)x, up = (u + 0x7fff + (u >> 16 & 1)) >> 16, is_nan = (Words)(x != x);
    return (is_nan & 0x7fc0) | (~is_nan & up);
}
INLINED V load(const bf16* p) {
    return each([&](int i) { return (Floats)(__builtin_convertvector(part_of<Halves>(p, i), Words) << 16); });
}
INLINED void store(bf16* p, V x) {
    for (int i = 0; i < PARTS; i++) {
        const Halves half = __builtin_convertvector(rounded(x.part[i]), Halves);
        memcpy(p + i * LANES, &half, sizeof half);
    }
}

INLINED Pairs load_pairs(const bf16* p) {
    Pairs x;
    for (int i = 0; i < PARTS; i++) x.part[i] = ((const WordsAnywhere*)p)[i];
    return x;
}
INLINED V even_of(Pairs x) {
    return each([&](int i) { return (Floats)(x.part[i] << 16); });
}
INLINED V odd_of(Pairs x) {
    return each([&](int i) { return (Floats)(x.part[i] & 0xffff0000); });
}
INLINED void store_pairs(bf16* p, V even, V odd) {
    for (int i = 0; i < PARTS; i++) ((WordsAnywhere*)p)[i] = rounded(even.part[i]) | rounded(odd.part[i]) << 16;
}

}  // namespace
