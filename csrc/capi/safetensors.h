// The safetensors format: an 8-byte length, a JSON header of that length, then the arrays. Files
// are not trusted: every number is checked before it is used.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/shape.h"

namespace marketplace::capi {

struct TensorEntry {
  std::string dtype;  // "F32", "I64"
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes behind the header
};

using TensorEntries = std::map<std::string, TensorEntry>;

// The entries of a JSON header; throws, naming what is wrong. Shapes and offsets are as written.
TensorEntries parse_safetensors_header(const std::string& text, const std::string& op);

// An open file whose header has been checked: the arrays lie one behind another and fill the file.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);

  const TensorEntries& entries() const { return entries_; }
  // Elements of a floating or integer dtype, as float32.
  std::vector<float> read_floats(const TensorEntry& entry);
  // The one element of an integer tensor.
  std::int64_t read_integer(const TensorEntry& entry);
  [[noreturn]] void refuse(const std::string& expected, const std::string& received) const;

 private:
  void read_header(std::uint64_t file_bytes);
  void check_layout(std::uint64_t data_bytes) const;
  std::vector<unsigned char> read_bytes(const TensorEntry& entry);
  void read(void* target, std::uint64_t bytes);

  std::string path_;
  std::ifstream file_;
  std::uint64_t data_start_ = 0;
  TensorEntries entries_;
};

bool is_floating(const std::string& dtype);
bool is_integer(const std::string& dtype);

// What to write: float32 values, or one int64.
struct TensorToWrite {
  std::string name;
  Shape shape;
  const float* values = nullptr;  // null: `number`
  std::int64_t number = 0;
};

// Writes beside `path`, flushes, renames: an older file is replaced whole or not at all. The same
// bytes as the safetensors library's for the same tensors.
void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors);

}  // namespace marketplace::capi
