// Elementwise ops, conversions and layouts: simple loops that the compiler vectorises, but for
// activations.
#pragma once

#include "cpu/kernels/activation.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/table.h"

namespace {

using marketplace::cpu::Unary;

template <class T, class Function>
MP_INLINE void map(const void* in, void* out, std::int64_t count, Function function) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  for (std::int64_t i = 0; i < count; ++i) from_float(function(to_float(x[i])), y[i]);
}

// Whole vectors, then what is left of one: an element's bits do not depend on where it lies.
template <class T, class Function>
MP_INLINE void map_vectors(const void* in, void* out, std::int64_t count, Function function) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  std::int64_t i = 0;
  for (; i + kVectorFloats <= count; i += kVectorFloats)
    store_floats(y + i, function(load_floats(x + i)));
  const int rest = static_cast<int>(count - i);
  if (rest > 0) store_partial(y + i, function(load_partial(x + i, rest)), rest);
}

template <class T>
void unary(Unary kind, const void* in, void* out, std::int64_t count) {
  switch (kind) {
    case Unary::relu: map<T>(in, out, count, [](float x) { return x < 0 ? 0.0f : x; }); break;
    case Unary::gelu: map_vectors<T>(in, out, count, [](Vec x) { return gelu(x); }); break;
    case Unary::gelu_tanh:
      map_vectors<T>(in, out, count, [](Vec x) { return gelu_tanh(x); });
      break;
    case Unary::sigmoid: map_vectors<T>(in, out, count, [](Vec x) { return sigmoid(x); }); break;
    case Unary::tanh: map_vectors<T>(in, out, count, [](Vec x) { return tanh(x); }); break;
  }
}

template <class T>
void affine(float scale, float shift, const void* in, void* out, std::int64_t count) {
  map<T>(in, out, count, [=](float x) { return scale * x + shift; });
}

template <class T>
void add(const void* a, const void* b, void* out, std::int64_t count, bool relu) {
  const T* x = static_cast<const T*>(a);
  const T* y = static_cast<const T*>(b);
  T* z = static_cast<T*>(out);
  const Vec floor = broadcast(relu ? 0.0f : -__builtin_inff());
  std::int64_t i = 0;
  for (; i + kVectorFloats <= count; i += kVectorFloats)
    store_floats(z + i, max(load_floats(x + i) + load_floats(y + i), floor));
  const int rest = static_cast<int>(count - i);
  if (rest > 0)
    store_partial(z + i, max(load_partial(x + i, rest) + load_partial(y + i, rest), floor), rest);
}

template <class T>
void multiply(const void* a, const void* b, void* out, std::int64_t count) {
  const T* x = static_cast<const T*>(a);
  const T* y = static_cast<const T*>(b);
  T* z = static_cast<T*>(out);
  for (std::int64_t i = 0; i < count; ++i) from_float(to_float(x[i]) * to_float(y[i]), z[i]);
}

template <class T>
void transpose(const void* in, void* out, std::int64_t samples, std::int64_t a, std::int64_t b) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  for (std::int64_t s = 0; s < samples; ++s, x += a * b, y += a * b)
    for (std::int64_t j = 0; j < b; ++j)
      for (std::int64_t i = 0; i < a; ++i) y[j * a + i] = x[i * b + j];
}

// Means of Lanes neighbours, each summed in the order of the axis.
template <int Lanes, class T>
MP_INLINE void mean_lanes(const T* x, T* y, std::int64_t axis, std::int64_t inner) {
  double sums[Lanes] = {};
  for (std::int64_t k = 0; k < axis; ++k)
    for (int i = 0; i < Lanes; ++i) sums[i] += to_float(x[k * inner + i]);
  for (int i = 0; i < Lanes; ++i)
    from_float(static_cast<float>(sums[i] / static_cast<double>(axis)), y[i]);
}

// The mean of a line, in sums side by side: one alone would wait for every addition.
template <class T>
MP_INLINE void mean_line(const T* x, T* y, std::int64_t axis) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  std::int64_t k = 0;
  for (; k + kSums <= axis; k += kSums)
    for (int i = 0; i < kSums; ++i) sums[i] += to_float(x[k + i]);
  for (int i = 0; k < axis; ++k, ++i) sums[i] += to_float(x[k]);
  for (int half = kSums / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  from_float(static_cast<float>(sums[0] / static_cast<double>(axis)), *y);
}

template <class T>
void mean(const void* in, void* out, std::int64_t outer, std::int64_t axis, std::int64_t inner) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  for (std::int64_t o = 0; o < outer; ++o, x += axis * inner, y += inner) {
    if (inner == 1) {
      mean_line(x, y, axis);
      continue;
    }
    std::int64_t i = 0;
    for (; i + 16 <= inner; i += 16) mean_lanes<16>(x + i, y + i, axis, inner);
    for (; i + 4 <= inner; i += 4) mean_lanes<4>(x + i, y + i, axis, inner);
    for (; i < inner; ++i) mean_lanes<1>(x + i, y + i, axis, inner);
  }
}

template <class T>
void pad(const void* in, void* out, std::int64_t samples, std::int64_t height, std::int64_t width,
         std::int64_t channels, std::int64_t pad_h, std::int64_t pad_w) {
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  const std::int64_t line = width * channels, padded = line + 2 * pad_w * channels;
  for (std::int64_t s = 0; s < samples; ++s) {
    std::memset(static_cast<void*>(y), 0, sizeof(T) * pad_h * padded);
    y += pad_h * padded;
    for (std::int64_t h = 0; h < height; ++h, x += line, y += padded) {
      std::memset(static_cast<void*>(y), 0, sizeof(T) * pad_w * channels);
      std::memcpy(static_cast<void*>(y + pad_w * channels), x, sizeof(T) * line);
      std::memset(static_cast<void*>(y + pad_w * channels + line), 0, sizeof(T) * pad_w * channels);
    }
    std::memset(static_cast<void*>(y), 0, sizeof(T) * pad_h * padded);
    y += pad_h * padded;
  }
}

template <class T>
void convert_from_float(const float* in, void* out, std::int64_t count) {
  T* y = static_cast<T*>(out);
  for (std::int64_t i = 0; i < count; ++i) from_float(in[i], y[i]);
}

template <class T>
void convert_from_uint8(const std::uint8_t* in, void* out, std::int64_t count) {
  T* y = static_cast<T*>(out);
  for (std::int64_t i = 0; i < count; ++i) from_float(static_cast<float>(in[i]), y[i]);
}

template <class T>
void convert_to_float(const void* in, float* out, std::int64_t count) {
  const T* x = static_cast<const T*>(in);
  for (std::int64_t i = 0; i < count; ++i) out[i] = to_float(x[i]);
}

}  // namespace
