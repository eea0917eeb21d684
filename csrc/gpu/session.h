// What a device executor keeps of a call, for calls of the same shape: how it was cut, where its
// pieces lie, and the graph of its kernels.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gpu/memory.h"
#include "gpu/runtime.h"
#include "gpu/schedule.h"
#include "gpu/weights.h"

namespace marketplace::gpu {

// The parts of a request that kernels' arguments follow from.
struct Signature {
  struct Vendors {
    VendorWeights::Kind kind;
    std::int64_t count;
    bool operator==(const Vendors&) const = default;
  };
  std::vector<std::vector<std::int32_t>> vendor, parent;  // the plan's levels
  std::int64_t input_count = 0, batch = 0;
  DType batch_dtype = DType::float32;
  bool samples_there = false;  // on a device, not on the host
  int label_bytes_there = 0;   // of a label on a device
  std::vector<Vendors> vendors;
  bool losses = false, inference = false;
  std::optional<std::int32_t> ignore_index;
  std::vector<std::int64_t> leaders;
  bool operator==(const Signature&) const = default;

  // Whether the device looks at what arrives.
  bool checked_there() const { return samples_there || label_bytes_there > 0; }
};
Signature signature_of(const Request& request);

// One batch normalisation's statistics, as the leader met them.
struct LeaderPlace {
  int level = 0, node = 0;
  std::int64_t channels = 0, count = 0;  // values per channel
  std::int64_t at = 0;                   // bytes into the results, (2, C)
};

struct Session {
  Signature signature;
  Demand demand;
  UploadPlan upload;
  Cut cut;
  ArenaPlan arena;
  Schedule schedule;
  std::vector<LeaderPlace> leaders;
  std::int64_t report = 0;   // bytes into the results, IncomingReport where something is checked
  std::int64_t verdict = 0;  // bytes into the results, of a whole step; see Verdict
  DeviceMemory table;        // Schedule::table
  std::vector<const float*> bases;  // of the latest call; a graph knows them
  Graph graph;
  std::int64_t graph_generation = -1;  // of the arena that the graph was recorded with
  std::int64_t runs = 0;
  std::uint64_t number = 0;  // of this cut, for keys
};

// Everything but the cut and what follows from it.
Session make_session(const std::vector<Program>& programs, const Request& request);

}  // namespace marketplace::gpu
