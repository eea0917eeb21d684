// What is behind the opaque handles.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "capi/marketplace.h"
#include "capi/status.h"
#include "market/optimizer.h"

struct mp_market {
  struct Spec {
    marketplace::Graph graph;  // while the market is being built
    std::int64_t vendor_count = 1, upstream_sampling = 0;
    bool output_named = false;
  };
  std::vector<Spec> specs;
  std::shared_ptr<marketplace::Market> finished;
};

struct mp_optimizer {
  // A batch that a line search will run again.
  struct KeptBatch {
    std::vector<unsigned char> data;
    marketplace::Batch batch;  // of data
    std::vector<std::int32_t> labels;
  };
  std::unique_ptr<marketplace::Optimizer> optimizer;
  marketplace::UnitVectorMode mode = marketplace::UnitVectorMode::per_spec;
  std::optional<std::int32_t> ignore_index;
  std::vector<std::int64_t> upstream_sampling;  // per spec, as given
  std::vector<double> total;                    // of the losses of the batches of these vendors
  std::int64_t batch_count = 0;
  std::vector<KeptBatch> batches;  // of a line search alone

  void start_over() {
    total.clear();
    batch_count = 0;
    batches.clear();
  }
};

namespace marketplace::capi {

inline Market& finished(const mp_market* market, const char* op) {
  const auto& made = required(market, op, "a market").finished;
  if (!made) fail(ErrorKind::runtime, op, "a market after mp_market_finish", "one being built");
  return *made;
}

inline Optimizer& engine(const mp_optimizer* optimizer, const char* op) {
  return *required(optimizer, op, "an optimizer").optimizer;
}

// A finite rate of at least 0.
float checked_rate(float value, const char* op, const char* name);
// How many losses a probe gives at most.
std::int64_t path_count(Optimizer& optimizer, std::int64_t batch_size);

}  // namespace marketplace::capi
