// How operations are made from functions of one lane's values.
#pragma once

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "warp.h"

namespace ptx {

// The vendor's units give this NaN, whatever NaN they are given.
template <class T>
inline T canonical(T value) {
  if constexpr (std::is_same_v<T, float>)
    return value != value ? std::bit_cast<float>(0x7FFFFFFFu) : value;
  else
    return value;
}

template <class To, class From, class F>
Operation unary(F) {
  return [](Warp& warp, const Instruction& instruction) {
    To* to = warp.lanes<To>(instruction, 0);
    const From* a = warp.lanes<From>(instruction, 1);
    each_lane(warp.active, [=](int lane) { to[lane] = static_cast<To>(F{}(a[lane])); });
  };
}

template <class T, class F>
Operation binary(F) {
  return [](Warp& warp, const Instruction& instruction) {
    T* to = warp.lanes<T>(instruction, 0);
    const T *a = warp.lanes<T>(instruction, 1), *b = warp.lanes<T>(instruction, 2);
    each_lane(warp.active,
              [=](int lane) { to[lane] = canonical(static_cast<T>(F{}(a[lane], b[lane]))); });
  };
}

// The last operand may have a type of its own: a shift's is unsigned and of 32 bits.
template <class To, class A, class B, class F>
Operation mixed(F) {
  return [](Warp& warp, const Instruction& instruction) {
    To* to = warp.lanes<To>(instruction, 0);
    const A* a = warp.lanes<A>(instruction, 1);
    const B* b = warp.lanes<B>(instruction, 2);
    each_lane(warp.active, [=](int lane) { to[lane] = static_cast<To>(F{}(a[lane], b[lane])); });
  };
}

template <class To, class T, class F>
Operation ternary(F) {
  return [](Warp& warp, const Instruction& instruction) {
    To* to = warp.lanes<To>(instruction, 0);
    const T *a = warp.lanes<T>(instruction, 1), *b = warp.lanes<T>(instruction, 2);
    const To* c = warp.lanes<To>(instruction, 3);
    each_lane(warp.active, [=](int lane) {
      to[lane] = canonical(static_cast<To>(F{}(a[lane], b[lane], c[lane])));
    });
  };
}

}  // namespace ptx
