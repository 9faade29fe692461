// Vectors of 16 floats, on whatever the processor has for them. NaN passes through everything.
//
// Both files say: set, load, store of float and of bf16 (rounded to nearest even); `*_first`, the first n of 16, where the
// others are zero, or left alone; fmadd x y + z, fnmadd z - x y, minimum and maximum (the second where one is NaN); what
// `exp` is made of; how many vectors are best for the sums of so many rows of a product; sum_of 16; shift_down, one place,
// of 32; choose, those that are not zero and their places -> how many; pairs of bf16 that lie side by side in memory, 32
// at a time.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// A vector of several registers would be handed over in memory, so whoever takes one is inlined.
#define INLINED inline __attribute__((always_inline))

typedef uint16_t bf16;
typedef int64_t I;

}  // namespace

#ifdef __AVX512F__
#include "native_simd_avx512.h"
#else
#include "native_simd_portable.h"
#endif

namespace {

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

// Polynomial of Cephes' expf, 2 ulp. The constant stands first in minimum and maximum, so NaN goes through.
INLINED V exp(V x) {
    x = maximum(set(-87.0f), minimum(set(87.0f), x));
    const V n = to_whole(x * set(1.44269504088896341f));
    V r = fnmadd(n, set(0.693359375f), x);
    r = fnmadd(n, set(-2.12194440e-4f), r);
    V p = set(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = fmadd(p, r, set(c));
    return times_power_of_two(fmadd(r * r, p, r + set(1.0f)), n);
}
INLINED V sigmoid(V x) { return reciprocal(set(1.0f) + exp(zero() - x)); }
INLINED V tanh(V x) { return fnmadd(set(2.0f), reciprocal(exp(x + x) + set(1.0f)), set(1.0f)); }
INLINED V one_minus_square(V x) { return fnmadd(x, x, set(1.0f)); }

inline void fetch(const void* p, I bytes = 0) { __builtin_prefetch((const char*)p + bytes); }
inline void pause() {
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

inline I up(I n, I to) { return (n + to - 1) / to * to; }

}  // namespace
