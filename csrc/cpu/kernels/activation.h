// Activations of vectors, within a few units in the last place of the true functions: nothing
// cancels, neither near 0 nor where they have all but vanished. Infinities and NaN are as in libm.
#pragma once

#include "cpu/kernels/exponential.h"
#include "cpu/kernels/simd.h"

namespace {

// 1 / (1 + e^-x), with an exponential that cannot overflow.
MP_INLINE Vec sigmoid(Vec x) {
  const Vec one = broadcast(1.0f), e = exp_negative(negative_magnitude(x));
  return (x < Vec{} ? e : one) / (one + e);
}

// (1 - e^-2|x|) / (1 + e^-2|x|).
MP_INLINE Vec tanh(Vec x) {
  const Vec magnitude = negative_magnitude(x);
  const Vec e = expm1_negative(magnitude + magnitude);
  return with_sign((Vec{} - e) / (e + broadcast(2.0f)), x);
}

// x / 2 (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3). Far below 0 the
// rounding of u shows: |u| / 2 units.
MP_INLINE Vec gelu_tanh(Vec x) {
  return x * sigmoid(x * fma(x * x, broadcast(0.0713548163f), broadcast(1.59576912f)));
}

// (1 - Phi(a)) e^(a^2 / 2) for 0 <= a <= 15: t P(s), t = k / (k + a) and s = 1 - t, with a minimax
// polynomial P that is exact at 0.
MP_INLINE Vec scaled_tail(Vec a) {
  const Vec k = broadcast(2.5f), inverse = broadcast(1.0f) / (k + a);
  return k * inverse *
         polynomial(a * inverse,
                    {-0.0319359638f, 0.111936383f, -0.125396833f, 0.0552392155f, -0.0599204563f,
                     0.0224225894f, 0.116744965f, 0.0678430647f, -0.497356892f, 0.5f});
}

// x Phi(x), Phi being the normal distribution. The square of |x| in two parts, the first of them
// exact: its rounding would be an error of the exponential.
MP_INLINE Vec gelu(Vec x) {
  const Vec size = (Vec)((VecU)x & 0x7FFFFFFFu), most = broadcast(15.0f);
  const Vec a = size > most ? most : size;  // where the tail is 0; NaN stays
  const Vec high = (Vec)((VecU)a & 0xFFFFF000u), half = broadcast(-0.5f);
  const Vec density = exp_negative(half * high * high, half * (a - high) * (a + high));
  const Vec tail = density * scaled_tail(a);
  return x * (x < Vec{} ? tail : broadcast(1.0f) - tail);
}

}  // namespace
