// Sums in float64 in an order that vectors and warps keep alike: lane l of 32 takes the values l, l
// + 32, ... one by one, then lanes are added in halves (l and l + 16, l and l + 8, ...). CPU and
// GPUs so get the same bits, and neither waits 4096 times for the last addition.
#pragma once

#include <cstdint>

namespace marketplace {

inline constexpr int kSumLanes = 32;

class LaneSum {
 public:
  void add(double value) { lanes_[count_++ % kSumLanes] += value; }
  double total() const {
    double lanes[kSumLanes];
    for (int l = 0; l < kSumLanes; ++l) lanes[l] = lanes_[l];
    for (int half = kSumLanes / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
  }

 private:
  template <class Value>
  friend double lane_sum(std::int64_t count, Value value);
  double lanes_[kSumLanes] = {};
  std::int64_t count_ = 0;
};

// Of value(0), value(1), ... value(count - 1).
template <class Value>
double lane_sum(std::int64_t count, Value value) {
  LaneSum sum;
  std::int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes)
    for (int l = 0; l < kSumLanes; ++l) sum.lanes_[l] += value(i + l);
  for (; i < count; ++i) sum.lanes_[i % kSumLanes] += value(i);
  return sum.total();
}

}  // namespace marketplace
