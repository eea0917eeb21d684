// Element types that enter the engine or are computed in.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"

namespace marketplace {

// tf32: float32 whose products round their factors to 10 bits of mantissa.
enum class DType { uint8, float32, bfloat16, tf32 };

inline std::int64_t size_bytes(DType dtype) {
  switch (dtype) {
    case DType::uint8: return 1;
    case DType::bfloat16: return 2;
    case DType::float32: return 4;
    case DType::tf32: return 4;
  }
  return 0;
}

inline DType compute_dtype(const std::string& name) {
  if (name == "float32") return DType::float32;
  if (name == "bfloat16") return DType::bfloat16;
  if (name == "tf32") return DType::tf32;
  fail("dtype", "'float32', 'bfloat16' or 'tf32'", "'" + name + "'");
}

inline std::string to_string(DType dtype) {
  switch (dtype) {
    case DType::uint8: return "uint8";
    case DType::bfloat16: return "bfloat16";
    case DType::float32: return "float32";
    case DType::tf32: return "tf32";
  }
  return "?";
}

}  // namespace marketplace
