// Aligned memory that is claimed once and used again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace marketplace::cpu {

class Buffer {
 public:
  // Grows only; the contents are lost when it does.
  std::byte* reserve(std::int64_t bytes) {
    if (bytes > capacity_) {
      data_.reset();
      capacity_ = 0;
      const std::size_t rounded = (static_cast<std::size_t>(bytes) + 63) / 64 * 64;
      data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
      if (!data_) throw std::bad_alloc();
      capacity_ = bytes;
    }
    return data_.get();
  }
  std::byte* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::int64_t capacity_ = 0;
};

}  // namespace marketplace::cpu
