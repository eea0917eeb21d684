// Signs that tell the probes of node perturbation apart: rows of a Walsh matrix, of which any two
// are orthogonal, and so are any two columns. For host and device.
//
// Row k and column c of the order n, a power of two, is minus where k & c has an odd number of
// bits. Columns count modulo n, for rows below n see no higher bits. Source: J. Walsh, "A closed
// set of normal orthogonal functions", American Journal of Mathematics 45(1), 1923, in the order of
// J. Sylvester's matrices.
#pragma once

#include <cstdint>

#include "core/threefry.h"

namespace marketplace {

// Pixel p of a channel has column first + p % period; in front are those of the channelwise
// parameters, 1 + i of the i-th. Column 0, all plus, is the last: what has it moves the same way in
// every probe.
struct PixelColumns {
  std::uint32_t first = 1, period = 1;
};

// The signs of one probe.
struct ProbeSigns {
  const std::uint32_t* words = nullptr;  // random ones of every element, the same for all probes
  std::uint32_t probe = 0;
  PixelColumns columns;
};

// 1 for a minus, 0 for a plus.
MP_HOST_DEVICE std::uint32_t walsh(std::uint32_t row, std::uint32_t column) {
  std::uint32_t bits = row & column;
  bits ^= bits >> 16, bits ^= bits >> 8, bits ^= bits >> 4;
  return 0x6996u >> (bits & 15u) & 1u;
}

MP_HOST_DEVICE std::uint32_t walsh_of_pixel(const ProbeSigns& signs, std::uint32_t pixel) {
  return walsh(signs.probe, signs.columns.first + pixel % signs.columns.period);
}

MP_HOST_DEVICE std::uint32_t walsh_of_parameter(std::uint32_t probe, std::int64_t position) {
  return walsh(probe, static_cast<std::uint32_t>(1 + position));
}

}  // namespace marketplace
