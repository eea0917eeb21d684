// The tiles of tile_mma.h, emulated: operands are read in mma(), all lanes together, as late as the
// wrapper permits; C is spread over the lanes as on no real device.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "simt.h"

namespace marketplace::gpu {

template <class T>
struct TileA {
  using Element = typename TileElement<T>::type;
  const Element* row_ = nullptr;
  void load(const Element* row) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
      simt::kernel_failure("TileA: a row that is not 16-byte aligned");
    row_ = row;
  }
};

template <class T>
struct TileB {
  using Element = typename TileElement<T>::type;
  const Element* first_ = nullptr;
  int stride_ = 0;
  void load(const Element* first, int stride) {
    if (reinterpret_cast<std::uintptr_t>(first) % 16 != 0 || stride * sizeof(Element) % 16 != 0)
      simt::kernel_failure("TileB: columns that are not 16-byte aligned");
    first_ = first;
    stride_ = stride;
  }
};

template <class T>
struct TileC {
  static constexpr int kCount = 256 / kWarpSize;
  float values_[kCount];

  static int row(int lane, int i) { return (i * kWarpSize + lane) * 7 % 16; }
  static int column(int lane, int i) { return (i * kWarpSize + lane) / 16; }

  void zero() {
    for (float& value : values_) value = 0;
  }
  template <class F>
  void for_each(F&& visit) {
    const int lane = simt::lane();
    for (int i = 0; i < kCount; ++i) visit(row(lane, i), column(lane, i), values_[i]);
  }
};

// What the unit multiplies: the element itself, or rounded to 10 bits of mantissa.
template <class T, class E>
float operand(E element) {
  const float value = to_float(element);
  if constexpr (std::is_same_v<T, Tf32>) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    return std::isfinite(value) ? std::bit_cast<float>((bits + 0x1000u) & 0xFFFFE000u) : value;
  }
  return value;
}

template <class T>
struct MmaSlot {
  TileC<T>* c;
  const TileA<T>* a;
  const TileB<T>* b;
};

template <class T>
void multiply(void* const* slots) {
  const auto lane = [&](int i) { return static_cast<const MmaSlot<T>*>(slots[i]); };
  const TileB<T> b = *lane(0)->b;
  for (int i = 0; i < kWarpSize; ++i)
    if (lane(i)->b->first_ != b.first_ || lane(i)->b->stride_ != b.stride_ ||
        lane(i)->a->row_ != lane(i % 16)->a->row_)
      return simt::collective_failure("mma: lanes with different tiles");
  for (int i = 0; i < kWarpSize; ++i) {
    for (int j = 0; j < TileC<T>::kCount; ++j) {
      const auto* x = lane(TileC<T>::row(i, j))->a->row_;
      const auto* y = b.first_ + static_cast<std::ptrdiff_t>(TileC<T>::column(i, j)) * b.stride_;
      float& sum = lane(i)->c->values_[j];
      for (int k = 0; k < 16; ++k) sum = std::fma(operand<T>(x[k]), operand<T>(y[k]), sum);
    }
  }
}

template <class T>
void mma(TileC<T>& c, const TileA<T>& a, const TileB<T>& b,
         const simt::Where& where = simt::Where::current()) {
  MmaSlot<T> slot = {&c, &a, &b};
  simt::warp_collective(&slot, &multiply<T>, where);
}

}  // namespace marketplace::gpu
