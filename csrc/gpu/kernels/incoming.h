// Batches that arrive in a device's memory: their values and labels are checked where they are.
#pragma once

#include <cstdint>

#include "gpu/runtime.h"

namespace marketplace::gpu {

constexpr int kCheckBlocks = 64;
constexpr std::int64_t kNowhere = INT64_MAX;

// What the checks found; an index kNowhere: nothing.
struct IncomingReport {
  std::int64_t not_finite[kCheckBlocks];  // the first such value that each block met
  std::int64_t bad_sample, bad_label;     // the first label that is no class
  std::int64_t counted;                   // labels that count
};

// Looks for NaN and infinity.
void check_values_gpu(const float* values, std::int64_t count, IncomingReport* report,
                      const Stream& stream);

struct LoadLabelsArgs {
  const void* in = nullptr;  // (B,)
  int bytes = 0;             // of a label
  bool is_signed = true;
  std::int64_t batch = 0, classes = 0;
  bool ignoring = false;
  std::int32_t ignored = 0;
  std::int32_t* out = nullptr;  // (B,); 0 instead of what is no class
  double* counted = nullptr;
  IncomingReport* report = nullptr;
};
void load_labels_gpu(const LoadLabelsArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
