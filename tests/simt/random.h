// The shim's own random choices: a function of one seed, so that a failure can be run again.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/threefry.h"

namespace simt {

class Random {
 public:
  explicit Random(std::uint64_t seed = 0) : seed_(seed) {}

  // 0 .. count - 1; the bias of the remainder does not matter here.
  std::size_t below(std::size_t count) {
    ++counter_;
    const auto words = marketplace::threefry2x32(seed_, static_cast<std::uint32_t>(counter_),
                                                 static_cast<std::uint32_t>(counter_ >> 32));
    return words.lane0 % count;
  }

  // Takes one element out of `items`, which lose their order.
  template <class T>
  T take(std::vector<T>& items) {
    std::swap(items[below(items.size())], items.back());
    T item = std::move(items.back());
    items.pop_back();
    return item;
  }

 private:
  std::uint64_t seed_, counter_ = 0;
};

}  // namespace simt
