// Tables for a device gathered into one block, to be copied at once: each begins where memory
// would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace marketplace::gpu {

inline constexpr std::size_t kTableAlignment = 256;

// Appends a table; gives where it begins, in bytes.
template <class T>
std::int64_t append_table(std::vector<std::byte>& block, const std::vector<T>& values) {
  const std::size_t at = (block.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment;
  block.resize(at + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(block.data() + at, values.data(), values.size() * sizeof(T));
  return static_cast<std::int64_t>(at);
}

}  // namespace marketplace::gpu
