// A spec lowered for a GPU: a list of steps over channels-last activations, and the layout of one
// vendor's packed weights.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "graph/readers.h"

namespace marketplace::gpu {

enum class StepKind {
  contract,  // conv2d and linear
  instance_norm,
  batch_norm,
  layer_norm,
  unary,
  affine,
  add,
  multiply,
  max_pool,
  avg_pool,
  mean,
  transpose,
  copy,
};

// What happens to a result on its way out.
enum class Activation { none, relu, gelu, gelu_tanh, sigmoid, tanh };
Activation activation_of(UnaryKind kind);

// A convolution as a matrix product, for one sample: rows are output pixels, columns the output
// channels of one group, k runs over (kh, kw, c). A linear layer is a 1 x 1 convolution over an
// image of one column.
struct Contraction {
  Window window;
  std::int64_t height = 1, width = 1, channels = 1;  // of the input
  std::int64_t out_height = 1, out_width = 1;
  std::int64_t groups = 1, columns = 0;           // columns of one group
  std::int64_t depth = 0, padded_depth = 0;       // k, and k as packed
  std::int64_t order_outer = 1, order_inner = 1;  // weight r of a column is k-element
                                                  // r % inner * outer + r / inner
  std::int64_t taps_at = 0;                       // first of its k-elements in Program::taps

  std::int64_t rows() const { return out_height * out_width; }
};

// Where a k-element of a contraction lies: `offset` elements from the window's first pixel, and how
// far below and right of it. Elements behind the depth lie below every image.
struct alignas(16) Tap {  // which one load brings
  std::int64_t offset;
  std::int32_t down, right;
};

struct Step {
  StepKind kind = StepKind::copy;
  int node = -1;                              // of the graph, for statistics
  int a = -1, b = -1, out = -1;               // slots
  int weight = -1, bias = -1;                 // parameter ids
  std::int64_t weight_at = -1, bias_at = -1;  // bytes into a vendor's packed weights, or -1
  Contraction contraction;
  Window window;              // pools
  Shape in_shape, out_shape;  // pools: (C, H, W)
  bool count_include_pad = true;
  bool pooled = false;  // instance_norm: max-pools on the way out
  Activation activation = Activation::none;
  float scale = 1, shift = 0, eps = 0;
  std::int64_t rows = 0, channels = 0;          // norms; transpose: (rows, channels) -> swapped
  std::int64_t outer = 0, axis = 0, inner = 0;  // mean
};

constexpr int kInputSlot = 0;

// An intermediate. Shared ones follow from the input alone, so there is one per upstream row; the
// others have one per row of the plan.
struct Slot {
  std::int64_t size = 0;  // elements of one sample
  bool shared = false;
  bool floats = false;      // float32 whatever the compute type
  int first = 0, last = 0;  // steps between which it holds a value
};

// How one parameter enters a vendor's packed weights.
struct Packing {
  int id = -1;
  bool panel = false;   // a matrix in the compute type, else plain float32
  std::int64_t at = 0;  // bytes
  std::int64_t depth = 1, padded_depth = 1, order_outer = 1, order_inner = 1;
};

struct Program {
  std::vector<Step> steps;
  std::vector<Slot> slots;
  std::vector<Packing> packings;
  std::vector<Tap> taps;
  int output_slot = 0;
  Layout output_layout;
  Shape output_shape;
  std::int64_t input_size = 0, output_size = 0;  // elements of one sample
  std::int64_t packed_bytes = 0;                 // of one vendor
  std::int64_t largest_channels = 1;
  std::int64_t flops = 0;
  bool whole_batch = false;  // a batch normalisation joins the samples of a batch
  bool linear_head = false;  // the last step is a linear layer that leaves the result
};

// The last spec of a market leaves planar float32, the others what suits the next.
Program lower(const Model& model, const Shape& input_shape, Layout input_layout, bool last,
              DType dtype);

// Byte offsets of a program's intermediates, and how many bytes they span; the input and the output
// lie elsewhere.
struct Places {
  std::vector<std::int64_t> offset;
  std::int64_t bytes = 0;
};
Places place_slots(const Program& program, DType dtype, std::int64_t rows, std::int64_t parents,
                   std::int64_t samples);

}  // namespace marketplace::gpu
