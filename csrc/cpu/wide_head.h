// The last spec of many markets is one linear layer that all its vendors run on the same input:
// then the vendors' columns side by side are one wide matrix, and no vendor's odd width wastes a
// vector.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/program.h"

namespace marketplace::cpu {

class WideHead {
 public:
  // Results of consecutive vendors: vendor v's logits of sample s start at
  // logits[s * stride + (v - first vendor) * outputs].
  struct Result {
    const float* logits;
    std::int64_t stride;
  };

  WideHead(const Program& program, const Model& model, const KernelTable& kernels, DType dtype);

  // Whether a program is a lone linear layer that one task can pack a group of.
  bool suits() const { return suits_; }
  std::int64_t group_vendors() const { return group_; }
  std::int64_t packed_bytes(std::int64_t vendors) const;
  std::int64_t staging_floats() const;
  // Vendors whose logits of one tile fit a thread's cache, and the floats that they need.
  std::int64_t run_vendors(std::int64_t tile) const;
  std::int64_t scratch_floats(std::int64_t tile) const;

  // Group g of the vendors into `packed`; groups may be packed side by side.
  void pack(const VendorWeights& weights, std::int64_t g, float* staging, std::byte* packed) const;

  Result run(const std::byte* packed, std::int64_t vendors, std::int64_t first, std::int64_t last,
             const std::byte* in, std::int64_t samples, float* scratch) const;

 private:
  const Program& program_;
  const Model& model_;
  const KernelTable& kernels_;
  const TypedKernels& typed_;
  bool suits_ = false;
  std::int64_t outputs_ = 0, depth_ = 0;
  std::int64_t block_ = 1;  // columns of a full panel block
  std::int64_t block_bytes_ = 0, workspace_floats_ = 0;
  std::int64_t group_ = 1;  // vendors whose columns fill whole blocks
};

}  // namespace marketplace::cpu
