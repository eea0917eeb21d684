// Exponentials and logarithms of vectors. Denormal results, infinities and NaN are as in libm.
#pragma once

#include "cpu/kernels/simd.h"

namespace {

MP_INLINE Vec with_sign(Vec magnitude, Vec sign) {
  return (Vec)((VecU)magnitude | ((VecU)sign & 0x80000000u));
}
MP_INLINE Vec negative_magnitude(Vec x) {
  return (Vec)((VecU)x | 0x80000000u);
}

// Highest power first.
template <int Count>
MP_INLINE Vec polynomial(Vec x, const float (&factors)[Count]) {
  Vec y = broadcast(factors[0]);
  for (int i = 1; i < Count; ++i) y = fma(y, x, broadcast(factors[i]));
  return y;
}

// e^x = 2^n e^rest, |rest| <= ln(2) / 2; n is held by the low bits of `shifted`.
struct PowerOfE {
  Vec shifted, rest;
};
MP_INLINE PowerOfE power_of_e(Vec x) {
  const Vec magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x * broadcast(1.44269504f) + magic;
  const Vec n = shifted - magic;
  return {shifted, (x - n * broadcast(0.693359375f)) - n * broadcast(-2.12194440e-4f)};
}
// 2^(n + up), which must be no denormal number.
MP_INLINE Vec power_of_two(Vec shifted, std::uint32_t up) {
  return (Vec)(((VecU)shifted << 23) + ((127 + up) << 23));
}

// e^(x + low) for x <= 0 and |low| < 0.06, within 2 ulp: a Taylor polynomial. The power of two
// comes in two factors, since the result may be a denormal number.
MP_INLINE Vec exp_negative(Vec x, Vec low) {
  const PowerOfE power = power_of_e(max(x, broadcast(-104.0f)));  // where it is 0
  const Vec e = polynomial(power.rest + low, {1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f,
                                              1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f});
  return e * power_of_two(power.shifted, 64) * broadcast(0x1p-64f);
}
MP_INLINE Vec exp_negative(Vec x) {
  return exp_negative(x, Vec{});
}

// e^x - 1 for x <= 0, within 2 ulp: 2^n (e^rest - 1) + (2^n - 1).
MP_INLINE Vec expm1_negative(Vec x) {
  const PowerOfE power = power_of_e(max(x, broadcast(-32.0f)));  // where it is -1
  const Vec r = power.rest, scale = power_of_two(power.shifted, 0);
  const Vec series = polynomial(
      r, {1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f});
  return fma(scale, fma(r * r, series, r), scale - broadcast(1.0f));
}

// log(1 + x) for finite x >= 0, within 2 ulp: 1 + x = 2^n m, m in [sqrt(1/2), sqrt(2)), log(m) =
// 2 atanh(t) by its series in t = (m - 1) / (m + 1). NaN stays NaN.
MP_INLINE Vec log1p_positive(Vec x) {
  const Vec one = broadcast(1.0f), sum = x + one, lost = x - (sum - one);
  const VecU power = (((VecU)sum - 0x3F3504F3u) >> 23) << 23;  // n << 23; sum >= 1, so n >= 0
  const Vec n = __builtin_convertvector((VecI)(power >> 23), Vec);
  const Vec f = ((Vec)((VecU)sum - power) - one) + lost * (Vec)(0x3F800000u - power);  // m - 1
  const Vec t = f / (f + broadcast(2.0f)), tt = t * t, twice = t + t;
  const Vec series = polynomial(tt, {1.0f / 9.0f, 1.0f / 7.0f, 1.0f / 5.0f, 1.0f / 3.0f});
  const Vec low = twice * tt * series + n * broadcast(-2.12194440e-4f);
  return n * broadcast(0.693359375f) + (twice + low) + (x - x);
}

}  // namespace
