#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "capi/safetensors.h"
#include "capi/status.h"

namespace marketplace::capi {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::uint64_t kLongestHeader = std::uint64_t{1} << 24;
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

struct DtypeSize {
  const char* name;
  std::uint64_t bytes;
};
constexpr DtypeSize kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                 {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
                                 {"U16", 2}, {"U8", 1},  {"BOOL", 1}};

// 0 for a dtype that is not known.
std::uint64_t item_bytes(const std::string& dtype) {
  for (const DtypeSize& known : kDtypes)
    if (dtype == known.name) return known.bytes;
  return 0;
}

// -1 when it is too large.
std::int64_t bounded_count(const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t own : shape) {
    if (own > 0 && count > kMostElements / own) return -1;
    count *= own;
  }
  return count;
}

template <class T>
T load(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

float half_to_float(std::uint16_t half) {
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const float sign = half >> 15 != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? std::nanf("") : sign * HUGE_VALF;
  return exponent == 0 ? sign * std::ldexp(static_cast<float>(mantissa), -24)
                       : sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

float element(const std::string& dtype, const unsigned char* at) {
  if (dtype == "F64") return static_cast<float>(load<double>(at));
  if (dtype == "F16") return half_to_float(load<std::uint16_t>(at));
  if (dtype == "BF16") return std::bit_cast<float>(std::uint32_t{load<std::uint16_t>(at)} << 16);
  if (dtype == "I64") return static_cast<float>(load<std::int64_t>(at));
  if (dtype == "I32") return static_cast<float>(load<std::int32_t>(at));
  if (dtype == "U64") return static_cast<float>(load<std::uint64_t>(at));
  if (dtype == "U32") return static_cast<float>(load<std::uint32_t>(at));
  return load<float>(at);
}

std::uint64_t integer(const std::string& dtype, const unsigned char* at) {
  if (dtype == "I32") return static_cast<std::uint64_t>(load<std::int32_t>(at));
  if (dtype == "U32") return load<std::uint32_t>(at);
  return load<std::uint64_t>(at);
}

std::uint64_t regular_file_size(const std::string& path) {
  struct stat facts;
  if (stat(path.c_str(), &facts) != 0) throw FileError(path, "a file", errno);
  if (!S_ISREG(facts.st_mode))  // reading a pipe might never end
    throw FileError(path, "a regular file", S_ISDIR(facts.st_mode) ? EISDIR : EINVAL);
  return static_cast<std::uint64_t>(facts.st_size);
}

}  // namespace

bool is_floating(const std::string& dtype) {
  return dtype == "F64" || dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

bool is_integer(const std::string& dtype) {
  return dtype == "I64" || dtype == "I32" || dtype == "U64" || dtype == "U32";
}

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(path) {
  const std::uint64_t bytes = regular_file_size(path);
  errno = 0;
  file_.open(path, std::ios::binary);
  if (!file_) throw FileError(path, "a file that can be read", errno == 0 ? EIO : errno);
  read_header(bytes);
}

const TensorEntry* SafetensorsReader::find(const std::string& name) const {
  const auto found = header_.entries.find(name);
  return found == header_.entries.end() ? nullptr : &found->second;
}

void SafetensorsReader::refuse(const std::string& expected, const std::string& received) const {
  fail("checkpoint " + path_, expected, received);
}

void SafetensorsReader::read(void* target, std::uint64_t bytes) {
  file_.read(static_cast<char*>(target), static_cast<std::streamsize>(bytes));
  if (!file_) refuse("a complete safetensors file", "an early end");
}

void SafetensorsReader::read_header(std::uint64_t file_bytes) {
  std::uint64_t length = 0;
  if (file_bytes < sizeof length) refuse("a complete safetensors file", "an early end");
  read(&length, sizeof length);
  if (length > file_bytes - sizeof length || length > kLongestHeader)
    refuse("a complete safetensors file", "a header of " + std::to_string(length) + " bytes");
  std::string text(length, '\0');
  read(text.data(), length);
  header_ = parse_safetensors_header(text, "checkpoint " + path_);
  data_start_ = sizeof length + length;
  check_layout(file_bytes - data_start_);
}

void SafetensorsReader::check_layout(std::uint64_t data_bytes) const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const auto& [name, entry] : header_.entries) {
    const std::uint64_t item = item_bytes(entry.dtype);
    if (item == 0) refuse(name + " of a known dtype", "another");
    const std::int64_t count = bounded_count(entry.shape);
    if (count < 0 || entry.begin > entry.end ||
        entry.end - entry.begin != static_cast<std::uint64_t>(count) * item)
      refuse(name + " with as many bytes as its shape has", "others");
    ranges.emplace_back(entry.begin, entry.end);
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t end = 0;
  for (const auto& [first, last] : ranges) {
    if (first != end) refuse("arrays one behind another", "a gap or an overlap");
    end = last;
  }
  if (end != data_bytes)
    refuse(std::to_string(end) + " bytes of arrays", std::to_string(data_bytes));
}

std::vector<unsigned char> SafetensorsReader::read_bytes(const TensorEntry& entry) {
  std::vector<unsigned char> bytes(entry.end - entry.begin);
  file_.seekg(static_cast<std::streamoff>(data_start_ + entry.begin));
  read(bytes.data(), bytes.size());
  return bytes;
}

std::vector<float> SafetensorsReader::read_floats(const TensorEntry& entry) {
  const std::vector<unsigned char> bytes = read_bytes(entry);
  const std::uint64_t item = item_bytes(entry.dtype);
  std::vector<float> values(bytes.size() / item);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = element(entry.dtype, bytes.data() + i * item);
  return values;
}

std::vector<std::uint64_t> SafetensorsReader::read_integers(const TensorEntry& entry) {
  const std::vector<unsigned char> bytes = read_bytes(entry);
  const std::uint64_t item = item_bytes(entry.dtype);
  std::vector<std::uint64_t> values(bytes.size() / item);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = integer(entry.dtype, bytes.data() + i * item);
  return values;
}

}  // namespace marketplace::capi
