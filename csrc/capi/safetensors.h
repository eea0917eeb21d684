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

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Reads a JSON header; throws, naming what is wrong. Shapes and offsets are as written.
SafetensorsHeader parse_safetensors_header(const std::string& text, const std::string& op);

// An open file whose header has been checked: the arrays lie one behind another and fill the file.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);

  // Null where there is none of this name.
  const TensorEntry* find(const std::string& name) const;
  const std::map<std::string, TensorEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  // Elements of a floating or integer dtype, as float32.
  std::vector<float> read_floats(const TensorEntry& entry);
  // Elements of an integer dtype, modulo 2^64.
  std::vector<std::uint64_t> read_integers(const TensorEntry& entry);
  [[noreturn]] void refuse(const std::string& expected, const std::string& received) const;

 private:
  void read_header(std::uint64_t file_bytes);
  void check_layout(std::uint64_t data_bytes) const;
  std::vector<unsigned char> read_bytes(const TensorEntry& entry);
  void read(void* target, std::uint64_t bytes);

  std::string path_;
  std::ifstream file_;
  std::uint64_t data_start_ = 0;
  SafetensorsHeader header_;
};

bool is_floating(const std::string& dtype);
bool is_integer(const std::string& dtype);

// What to write; the data must outlive the writing.
struct TensorToWrite {
  std::string name, dtype;  // "F32", "I64" or "U64"
  Shape shape;
  const void* data = nullptr;
};

// Writes beside `path`, flushes, renames: an older file is replaced whole or not at all. The same
// bytes as the safetensors library's for the same tensors.
void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace marketplace::capi
