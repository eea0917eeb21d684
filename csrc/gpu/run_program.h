// A program's steps on one chunk, put on a stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gpu/kernels/contract.h"
#include "gpu/program.h"
#include "gpu/runtime.h"
#include "gpu/schedule.h"

namespace marketplace::gpu {

// Where a batch normalisation's numbers are.
struct StatisticsPlace {
  const float* fixed = nullptr;  // (2, C) running statistics, in inference
  float* leader = nullptr;       // (2, C) where the leader's go, or nullptr
};

// Everything on the device.
struct RunArgs {
  const Program* program = nullptr;
  const Places* places = nullptr;
  const Chunk* chunk = nullptr;
  const std::int32_t* table = nullptr;  // Schedule::table
  const Tap* taps = nullptr;            // Program::taps
  const std::byte* packed = nullptr;    // (V, packed_bytes)
  std::int64_t samples = 0;
  const std::byte* in = nullptr;  // (parents, samples, input_size)
  std::byte* out = nullptr;       // (rows, samples, output_size), unless there is a loss
  std::byte* scratch = nullptr;
  float* statistics = nullptr;               // (rows, 2, largest_channels)
  double* partial = nullptr;                 // (rows, splits, largest_channels)
  std::vector<StatisticsPlace> batch_norms;  // in the order of their steps
  LossArgs loss;                             // set: a linear head ends in losses instead of results
};

void run_program(DType dtype, const DeviceInfo& device, const RunArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
