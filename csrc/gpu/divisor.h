// Division by a number that the host knows: a multiplication and a shift, where a device needs some
// twenty instructions for a division of 32 bits and more for one of 64.
#pragma once

#include <bit>
#include <cstdint>

#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

struct Division {
  std::uint32_t quotient, remainder;
};

// Numbers below 2^31, divided by one from 1 to 2^31 - 1. With 2^l the power of two from there on
// and m = ceil(2^(31+l) / by), n m / 2^(31+l) lies above n / by by less than 1 / by, so that
// nothing is rounded up (Granlund & Montgomery 1994).
struct Divisor {
  std::uint32_t by = 1, multiplier = 1u << 31, shift = 31;

  Divisor() = default;
  // Of another number: as 1. What is divided is empty then, or refused before a device sees it.
  explicit Divisor(std::int64_t number)
      : by(number < 1 || number > INT32_MAX ? 1u : static_cast<std::uint32_t>(number)) {
    shift = 31 + static_cast<std::uint32_t>(std::bit_width(by - 1));
    multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << shift) + by - 1) / by);
  }

  __device__ __forceinline__ Division divide(std::uint32_t number) const {
    const auto quotient =
        static_cast<std::uint32_t>((static_cast<std::uint64_t>(number) * multiplier) >> shift);
    return {quotient, number - quotient * by};
  }
};

}  // namespace marketplace::gpu
