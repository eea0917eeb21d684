// Minimal filtering in one dimension: the transforms of inputs, kernel and results that multiply
// polynomials by their values at N points (winograd.h nests them). The points are chosen for small
// rounding errors.
#pragma once

#include "cpu/kernels/simd.h"

namespace {

// One dimension of the transforms through N points: B^T, G and A^T.
template <int N>
struct Minimal;

// Points 0, 1, -1 and infinity.
template <>
struct Minimal<4> {
  MP_INLINE void input(const Vec (&d)[4], Vec (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }
  MP_INLINE void weight(const Vec (&g)[3], Vec (&t)[4]) {
    const Vec half = broadcast(0.5f), even = (g[0] + g[2]) * half;
    t[0] = g[0];
    t[1] = fma(g[1], half, even);
    t[2] = fma(-g[1], half, even);
    t[3] = g[2];
  }
  MP_INLINE void output(const Vec (&m)[4], Vec (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
};

// Points 0, a, -a, c and infinity. With a = 3/4 and c = 3/2 the errors are the direct sum's, half
// those of 1 and 2; both and their squares are exact.
template <>
struct Minimal<5> {
  static constexpr float a = 0.75f, c = 1.5f, aa = a * a, cc = c * c;
  static constexpr float scale_plus = 1 / (2 * aa * (a - c)), scale_minus = -1 / (2 * aa * (a + c));
  static constexpr float scale_c = 1 / (c * (cc - aa));

  MP_INLINE void input(const Vec (&d)[5], Vec (&t)[5]) {
    const Vec minus_aa = broadcast(-aa), minus_c = broadcast(-c);
    const Vec odd = fma(d[1], minus_c, d[2]), even = fma(d[2], minus_c, d[3]);
    t[0] = fma(fma(d[0], minus_c, d[1]), minus_aa, even);
    t[1] = fma(odd, broadcast(a), even);
    t[2] = fma(odd, broadcast(-a), even);
    t[3] = fma(d[1], minus_aa, d[3]);
    t[4] = fma(odd, minus_aa, fma(d[3], minus_c, d[4]));
  }
  MP_INLINE void weight(const Vec (&g)[3], Vec (&t)[5]) {
    const Vec even = fma(g[2], broadcast(aa), g[0]);
    t[0] = g[0] * broadcast(1 / (aa * c));
    t[1] = fma(g[1], broadcast(a), even) * broadcast(scale_plus);
    t[2] = fma(g[1], broadcast(-a), even) * broadcast(scale_minus);
    t[3] = fma(fma(g[2], broadcast(c), g[1]), broadcast(c), g[0]) * broadcast(scale_c);
    t[4] = g[2];
  }
  MP_INLINE void output(const Vec (&m)[5], Vec (&y)[3]) {
    const Vec even = m[1] + m[2], odd = m[1] - m[2];
    y[0] = m[0] + even + m[3];
    y[1] = fma(odd, broadcast(a), m[3] * broadcast(c));
    y[2] = fma(even, broadcast(aa), fma(m[3], broadcast(cc), m[4]));
  }
};

// Points 0, a, -a, b, -b and infinity. With a = 5/8 and b = 3/2 the errors are half those of the
// usual 1 and 2, close to the direct sum's, and a, b and their squares are exact.
template <>
struct Minimal<6> {
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  static constexpr float scale_a = 1 / (2 * aa * (aa - bb)), scale_b = 1 / (2 * bb * (bb - aa));

  MP_INLINE void input(const Vec (&d)[6], Vec (&t)[6]) {
    const Vec minus_aa = broadcast(-aa), minus_bb = broadcast(-bb);
    const Vec product = broadcast(aa * bb), minus_sum = broadcast(-(aa + bb));
    const Vec even_a = fma(d[2], minus_bb, d[4]), odd_a = fma(d[1], minus_bb, d[3]);
    const Vec even_b = fma(d[2], minus_aa, d[4]), odd_b = fma(d[1], minus_aa, d[3]);
    t[0] = fma(d[0], product, fma(d[2], minus_sum, d[4]));
    t[1] = fma(odd_a, broadcast(a), even_a);
    t[2] = fma(odd_a, broadcast(-a), even_a);
    t[3] = fma(odd_b, broadcast(b), even_b);
    t[4] = fma(odd_b, broadcast(-b), even_b);
    t[5] = fma(d[1], product, fma(d[3], minus_sum, d[5]));
  }
  template <int R>
  MP_INLINE void weight(const Vec (&g)[R], Vec (&t)[6]) {
    const Vec even_a = even(g, aa) * broadcast(scale_a);
    const Vec even_b = even(g, bb) * broadcast(scale_b);
    t[0] = g[0] * broadcast(1 / (aa * bb));
    t[1] = fma(odd(g, aa), broadcast(a * scale_a), even_a);
    t[2] = fma(odd(g, aa), broadcast(-a * scale_a), even_a);
    t[3] = fma(odd(g, bb), broadcast(b * scale_b), even_b);
    t[4] = fma(odd(g, bb), broadcast(-b * scale_b), even_b);
    t[5] = g[R - 1];
  }
  MP_INLINE void output(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec even_a = m[1] + m[2], odd_a = m[1] - m[2];
    const Vec even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + even_a + even_b;
    y[1] = fma(odd_a, broadcast(a), odd_b * broadcast(b));
    y[2] = fma(even_a, broadcast(aa), even_b * broadcast(bb));
    y[3] = fma(odd_a, broadcast(a * aa), fma(odd_b, broadcast(b * bb), m[5]));
  }
  MP_INLINE void output(const Vec (&m)[6], Vec (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    y[1] = fma(m[1] - m[2], broadcast(a), fma(m[3] - m[4], broadcast(b), m[5]));
  }

 private:
  // The kernel as a polynomial, its even and odd powers apart, at a point of this square; the odd
  // ones over the point.
  MP_INLINE Vec even(const Vec (&g)[3], float square) { return fma(g[2], broadcast(square), g[0]); }
  MP_INLINE Vec even(const Vec (&g)[5], float square) {
    return fma(fma(g[4], broadcast(square), g[2]), broadcast(square), g[0]);
  }
  MP_INLINE Vec odd(const Vec (&g)[3], float) { return g[1]; }
  MP_INLINE Vec odd(const Vec (&g)[5], float square) { return fma(g[3], broadcast(square), g[1]); }
};

}  // namespace
