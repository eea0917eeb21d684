// Sums up the cross-entropy of every path.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/job.h"
#include "cpu/kernels/table.h"

namespace marketplace::cpu {

class LossSums final : public Sink {
 public:
  explicit LossSums(const KernelTable& kernels) : kernels_(kernels) {}

  void begin(const Job& job, const Labels& labels, std::int64_t classes);
  void take(std::int64_t path, std::int64_t first, std::int64_t count, const float* logits,
            std::int64_t stride) override;
  // losses (P,): means over the samples that count.
  void finish(float* losses) const;

 private:
  const KernelTable& kernels_;
  const Job* job_ = nullptr;
  const Labels* labels_ = nullptr;
  std::int64_t classes_ = 0, paths_ = 0;
  std::vector<std::int64_t> block_;  // (B,) whose block a sample is in
  std::vector<double> partial_;      // (blocks, P)
};

}  // namespace marketplace::cpu
