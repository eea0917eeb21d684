// The shim's own random choices: a function of one seed, so that a failure can be run again. One is
// drawn at every switch of threads, so it is SplitMix64, a tenth of what Threefry takes here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace simt {

class Random {
 public:
  explicit Random(std::uint64_t seed = 0) : state_(seed) {}

  // 0 .. count - 1; the bias of the remainder does not matter here.
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(next() % count); }

  // Takes one element out of `items`, which lose their order.
  template <class T>
  T take(std::vector<T>& items) {
    std::swap(items[below(items.size())], items.back());
    T item = std::move(items.back());
    items.pop_back();
    return item;
  }

 private:
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
  }

  std::uint64_t state_;
};

}  // namespace simt
