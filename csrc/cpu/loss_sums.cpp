#include "cpu/loss_sums.h"

#include <algorithm>

#include "cpu/losses.h"

namespace marketplace::cpu {

void LossSums::begin(const Job& job, const Labels& labels, std::int64_t classes) {
  job_ = &job;
  labels_ = &labels;
  classes_ = classes;
  paths_ = job.plan.path_count();
  const std::int64_t blocks = job.schedule->blocks;
  partial_.assign(blocks * paths_, 0.0);
  block_.resize(job.batch.size);
  for (std::int64_t b = 0; b < blocks; ++b)
    std::fill(block_.begin() + job.block_begin(b), block_.begin() + job.block_begin(b + 1), b);
}

void LossSums::take(std::int64_t path, std::int64_t first, std::int64_t count, const float* logits,
                    std::int64_t stride) {
  for_each_loss(
      kernels_, logits, stride, count, classes_, labels_->data + first, *labels_,
      [&](std::int64_t s, double loss) { partial_[block_[first + s] * paths_ + path] += loss; });
}

void LossSums::finish(float* losses) const {
  std::int64_t counted = job_->batch.size;
  if (labels_->ignore_index)
    counted -= std::count(labels_->data, labels_->data + counted, *labels_->ignore_index);
  for (std::int64_t p = 0; p < paths_; ++p) {
    double total = 0;
    for (std::int64_t b = 0; b < job_->schedule->blocks; ++b) total += partial_[b * paths_ + p];
    losses[p] = static_cast<float>(total / static_cast<double>(counted));
  }
}

}  // namespace marketplace::cpu
