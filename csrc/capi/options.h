// Structs that begin with their own size, so that they can grow: what an older caller does not have
// is zero, and zero means the default; what this library does not know must be zero.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "capi/status.h"

namespace marketplace::capi {

constexpr std::size_t kLargestStruct = 4096;

inline void check_struct_size(std::size_t size, const char* op) {
  if (size < sizeof(std::size_t) || size > kLargestStruct)
    fail(op, "a struct whose size is set", std::to_string(size));
}

template <class T>
T read_options(const T* given, const char* op) {
  const std::size_t size = required(given, op, "options").size;
  check_struct_size(size, op);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(T); i < size; ++i)
    if (bytes[i] != 0) fail(op, "options that this version of the library knows", "newer ones");
  T options{};
  std::memcpy(&options, bytes, std::min(size, sizeof(T)));
  if constexpr (requires { options.reserved; })
    if (options.reserved != 0) fail(op, "zero in reserved", std::to_string(options.reserved));
  return options;
}

// As read_options, and NULL means defaults alone.
template <class T>
T read_optional(const T* given, const char* op) {
  return given == nullptr ? T{} : read_options(given, op);
}

// Fills in as much of a result as the caller knows.
template <class T>
void write_result(T* target, T result, const char* op) {
  const std::size_t size = required(target, op, "a struct to fill in").size;
  check_struct_size(size, op);
  result.size = size;
  std::memcpy(static_cast<void*>(target), &result, std::min(size, sizeof(T)));
}

}  // namespace marketplace::capi
