// What a call brings to the device: the batch, and how every spec's vendors differ from the base
// weights. One block, filled on the host and copied at once.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/kernels/random.h"
#include "gpu/memory.h"

namespace marketplace::gpu {

// The parameters of a spec and the blocks of threads that generate them, for kernels in random.h.
struct ParameterTable {
  std::vector<Parameter> parameters;
  std::vector<RandomTile> tiles;
};
// `packings`: where each parameter goes; nullptr where they only are summed up.
ParameterTable parameter_table(const Model& model, const std::vector<Packing>* packings);

// Byte offsets into the block.
struct UploadPlan {
  struct Level {
    std::int64_t seeds = 0, scales = 0, amplitudes = 0, values = 0;
    std::vector<std::int64_t> running;  // per batch norm, (2, C)
  };
  std::int64_t samples = 0, labels = 0, counted = 0;
  std::int64_t raw_labels = 0;  // as they came, where a device has them
  std::vector<Level> levels;
  std::int64_t bytes = 0;        // from the host
  std::int64_t arena_bytes = 0;  // with what comes from the device itself: directions
};

struct Request {
  const Plan* plan = nullptr;
  const std::vector<VendorWeights>* weights = nullptr;
  const Batch* batch = nullptr;
  const Labels* labels = nullptr;  // nullptr: results are wanted, not losses
  bool inference = false;
  std::vector<std::int64_t> leaders;  // per level, whose batch statistics are wanted, or -1
  // Per level, on the device: the base weights W, and of scaled vendors the direction, else null.
  std::vector<const float*> bases, directions;
};

UploadPlan plan_upload(const std::vector<Program>& programs, const Request& request);

// Writes the block, all but what is on a device already.
void fill_upload(const std::vector<Program>& programs,
                 const std::vector<std::shared_ptr<Model>>& models, const Request& request,
                 const UploadPlan& plan, std::byte* block);

}  // namespace marketplace::gpu
