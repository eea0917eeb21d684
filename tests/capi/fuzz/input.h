// The fuzzer's bytes as choices; zeros when they run out.
#pragma once

#include <cstdint>
#include <cstring>

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }
  std::uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // From 0 to end - 1.
  int below(int end) { return byte() % end; }
  bool coin() { return (byte() & 1) != 0; }
  // Mostly what a layer might have; else what no layer has. Nothing between: such sizes are legal,
  // and only slow.
  std::int64_t extent() { return usual_or_odd(1, 8); }
  std::int64_t padding() { return usual_or_odd(0, 3); }
  float number() {
    float value = 0;
    if (coin()) return static_cast<float>(below(64)) / 16.0f;
    for (int i = 0; i < 4; ++i) reinterpret_cast<std::uint8_t*>(&value)[i] = byte();
    return value;
  }
  void fill(void* target, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) static_cast<std::uint8_t*>(target)[i] = byte();
  }

 private:
  std::int64_t usual_or_odd(int first, int count) {
    static constexpr std::int64_t odd[] = {-1,
                                           0,
                                           INT64_MIN,
                                           INT64_MAX,
                                           INT64_MAX - 1,
                                           INT32_MIN,
                                           std::int64_t{1} << 31,
                                           std::int64_t{1} << 40};
    const std::uint8_t choice = byte();
    return choice >= 248 ? odd[choice - 248] : first + choice % count;
  }

  const std::uint8_t* data_;
  std::size_t size_;
};
