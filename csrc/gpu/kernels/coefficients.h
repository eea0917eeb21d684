// From the losses of all paths to the coefficients of a step, with the bits of
// market/coefficients.cpp: float64, sums as in core/lane_sum.h, every operation rounded by
// itself.
#pragma once

#include <cstdint>

#include "backend.h"
#include "gpu/kernels/incoming.h"
#include "gpu/kernels/verdict.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

// What a device tells of its part of a plan: the losses, and behind them one number more, which is
// finite if nothing was wrong with the batch.
struct PublishArgs {
  const float* losses = nullptr;  // (count,)
  std::int64_t count = 0;
  const IncomingReport* report = nullptr;  // read as far as something was checked
  bool checks_values = false, checks_labels = false;
  float* out = nullptr;  // (count + 1,)
};
void publish_losses_gpu(const PublishArgs& args, const Stream& stream);

// An entry is one path in one group (see ScoreGroup); the entries of a group are neighbours. A
// coefficient is a sum of terms, the scores of some entries.
struct ScoreArgs {
  Shaping shaping = Shaping::z;
  const float* losses = nullptr;  // (loss_count,) as published by all devices
  std::int64_t loss_count = 0;
  const std::int32_t* entries = nullptr;      // (E,) where in losses
  const std::int32_t* group_of = nullptr;     // (E,)
  const std::int32_t* group_first = nullptr;  // (G + 1,) among the entries
  const std::int32_t* must_differ = nullptr;  // (G,)
  std::int64_t entry_count = 0, group_count = 0;
  const std::int32_t* terms = nullptr;       // (T,) entries
  const std::int32_t* term_first = nullptr;  // (C + 1,) among the terms
  std::int64_t coefficient_count = 0;
  // (G, 2): mean and deviation, or the two losses in the middle, or the entry of the lowest loss
  double* moments = nullptr;
  double* scores = nullptr;       // (E,)
  float* coefficients = nullptr;  // (C,)
  Verdict* verdict = nullptr;
};
void score_losses_gpu(const ScoreArgs& args, const Stream& stream);

}  // namespace marketplace::gpu
