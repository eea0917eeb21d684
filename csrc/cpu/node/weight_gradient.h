// The gradient of a contraction's weights: an outer product of what went in and of the errors that
// came back, summed over samples and pixels. G[o, r] = sum over (b, p) of e[b, p, o] * x[b, p, r],
// r counting the elements of a patch. Run as a contraction itself, whose steps are pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/table.h"
#include "graph/graph.h"

namespace marketplace::cpu {

class WeightGradient {
 public:
  // in, sum: shapes of the contraction's input and result; weight: (O, ...).
  WeightGradient(const Op& op, const Shape& in, const Shape& sum, const Shape& weight,
                 const KernelTable& kernels);

  std::int64_t input_floats() const { return input_floats_; }  // of a sample, with its padding
  std::int64_t panel_floats(std::int64_t samples) const;
  std::int64_t result_floats() const { return rows() * columns_; }
  std::int64_t task_count() const { return (rows() + kTaskRows - 1) / kTaskRows; }

  // x: one sample, row-major; out (input_floats): the same inside its zeros.
  void store_input(const float* x, float* out) const;
  // errors (pixels, O) of sample b of `samples`, times scale, into the panel.
  void store_errors(const float* errors, float scale, std::int64_t b, std::int64_t samples,
                    float* panel) const;
  // Rows of one task into result (rows, O).
  void run(std::int64_t task, std::int64_t samples, const float* inputs, const float* panel,
           float* result) const;
  // weight (O, ...) += result, bias (O) += sums of the panel; bias may be null.
  void add(const float* result, const float* panel, std::int64_t samples, float* weight,
           float* bias) const;

 private:
  static constexpr std::int64_t kTaskRows = 48;

  std::int64_t rows() const { return static_cast<std::int64_t>(row_offset_.size()); }
  std::int64_t block_width(std::int64_t column) const;
  void build_conv(const Op& op, const Shape& sum, const Shape& weight);

  const KernelTable& kernels_;
  Shape in_;
  std::int64_t pad_[2] = {0, 0}, width_ = 1;
  std::int64_t columns_, pixels_, input_floats_ = 0, run_length_ = 1;
  std::vector<std::int64_t> row_offset_, run_offset_;  // of one sample
};

}  // namespace marketplace::cpu
