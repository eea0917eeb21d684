// Checkpoints in Python's layout: every array as "spec.{i}.{key}", the scalar global_step, and of
// an optimizer "optimizer.{name}" and settings in the metadata.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "capi/safetensors.h"
#include "market/market.h"

namespace marketplace::capi {

constexpr const char* kOptimizerPrefix = "optimizer.";

// A market's tensors as a file has them. Holds what is not a market's own array.
class MarketTensors {
 public:
  MarketTensors(const Market& market, std::int64_t step);
  std::vector<TensorToWrite> list;

 private:
  std::vector<std::int64_t> integers_;
};

// A file's arrays, read and checked against a market, until they become the market's.
class LoadedMarket {
 public:
  LoadedMarket(SafetensorsReader& file, const Market& market);
  std::int64_t step() const { return step_; }
  void assign() const;

 private:
  struct Array {
    Model* model = nullptr;
    int id = 0;
    std::vector<float> values;
  };
  std::int64_t step_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace marketplace::capi
