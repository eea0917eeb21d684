// What is behind the opaque handles.
#pragma once

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
  };
  std::vector<Spec> specs;
  std::shared_ptr<marketplace::Market> finished;
};

struct mp_optimizer {
  std::unique_ptr<marketplace::Optimizer> optimizer;
  marketplace::UnitVectorMode mode = marketplace::UnitVectorMode::per_spec;
  std::optional<std::int32_t> ignore_index;
  std::vector<std::int64_t> upstream_sampling;  // per spec, as given
};

namespace marketplace::capi {

inline Market& finished(const mp_market* market, const char* op) {
  const auto& made = required(market, op, "a market").finished;
  if (!made) fail(ErrorKind::runtime, op, "a market after mp_market_finish", "one being built");
  return *made;
}

}  // namespace marketplace::capi
