// Shapes: row-major extents, always without the batch unless a comment says otherwise.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace marketplace {

using Shape = std::vector<std::int64_t>;

inline std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return count;
}

// The least multiple that is no smaller.
inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// "(3, 32, 32)", with "B, " in front when the shape is one sample's.
inline std::string to_string(const Shape& shape, bool per_sample = false) {
  std::string text = per_sample ? "(B" : "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0 || per_sample) text.append(", ");
    text.append(std::to_string(shape[i]));
  }
  return text.append(shape.size() + (per_sample ? 1 : 0) == 1 ? ",)" : ")");
}

}  // namespace marketplace
