// A spec lowered for the CPU: a list of steps over channels-last tiles, where every intermediate
// lives in one scratch block, and the layout of one vendor's packed weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "cpu/kernels/table.h"
#include "graph/readers.h"

namespace marketplace::cpu {

enum class StepKind {
  contract,  // conv2d and linear
  winograd,  // conv2d by minimal filtering
  grouped,   // conv2d whose groups share vectors
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
  pad,
  copy,
  to_float,
};

// A convolution or linear layer as an indirect matrix product, for one sample; see ContractArgs.
struct Contraction {
  std::vector<std::int64_t> row_offset, run_offset;
  std::vector<std::int64_t> target;      // where the k-th weight of a column goes, see PackArgs
  std::int64_t line = 0, line_step = 0;  // rows of a line, elements between them
  TileRows tiles{};                      // of one group, on matrix units
  std::vector<TilePiece> pieces;         // where rows are gathered
  std::int64_t run_length = 0, groups = 1, columns = 0;  // columns of one group
  std::int64_t group_input = 0;                          // input elements between groups
  std::int64_t panel_depth = 0, panel_bytes = 0;         // of one group
  std::int64_t workspace_bytes = 0;
  bool float_out = false;
};

struct Step {
  StepKind kind = StepKind::copy;
  int node = -1;                              // of the graph, for statistics
  int a = -1, b = -1, out = -1;               // slots
  int weight = -1, bias = -1;                 // parameter ids
  std::int64_t weight_at = -1, bias_at = -1;  // bytes into the packed weights, -1 when absent
  Contraction contraction;
  WinogradArgs winograd{};
  PoolArgs pool{};
  bool relu = false;    // convolutions, linear, channel norms, add: clamps on the way out
  bool pooled = false;  // instance_norm: max-pools on the way out
  Unary unary = Unary::relu;
  float scale = 1, shift = 0, eps = 0;
  std::int64_t rows = 0, channels = 0;          // norms; transpose: (rows, channels) -> swapped
  std::int64_t outer = 0, axis = 0, inner = 0;  // mean
  std::int64_t height = 0, width = 0, pad_h = 0, pad_w = 0;  // pad
};

constexpr int kInputSlot = 0;
constexpr std::int64_t kLineBytes = 64;  // of a cache

struct Slot {
  std::int64_t size = 0;               // elements of one sample
  std::int64_t place = 0, offset = 0;  // elements of scratch, rounded up, and where they start
  int first = 0, last = 0;             // steps between which it holds a value
};

struct Program {
  std::vector<Step> steps;
  std::vector<Slot> slots;
  int output_slot = 0;
  Layout output_layout;
  Shape output_shape;
  std::int64_t input_size = 0, output_size = 0, scratch_size = 0;  // elements of one sample
  std::int64_t packed_bytes = 0, largest_channels = 1;
  std::int64_t workspace_bytes = 0;  // of one step, behind the scratch of all samples
  std::int64_t staging_floats = 0;   // what packing one vendor needs beside its result
  std::int64_t flops = 0;

  std::int64_t scratch_bytes(std::int64_t samples, std::int64_t element_bytes) const {
    return std::max<std::int64_t>(kLineBytes,
                                  scratch_size * samples * element_bytes + workspace_bytes);
  }
};

// Columns of packed weights: whole blocks, then one that is as narrow as the rest allows.
std::int64_t padded_columns(std::int64_t columns, const KernelTable& kernels);

// Whether products run on matrix units.
inline bool multiplies_tiles(const KernelTable& kernels, DType dtype) {
  return kernels.matrix_units && dtype == DType::bfloat16;
}

// Steps of packed weights: of pack_panel's, zeros included.
std::int64_t padded_depth(std::int64_t runs, std::int64_t run_length, DType dtype,
                          const KernelTable& kernels);

enum class Convolution {
  fastest,  // by minimal filtering where that pays
  direct,   // sums of products alone
};

// The last spec of a market leaves planar float32, the others what suits the next.
Program lower(const Model& model, const Shape& input_shape, Layout input_layout, bool last,
              DType dtype, const KernelTable& kernels,
              Convolution convolution = Convolution::fastest);

// One parameter of one vendor, (size,) float32: base weights plus delta.
void vendor_parameter(const KernelTable& kernels, const Model& model, const VendorWeights& weights,
                      std::int64_t vendor, int id, float* out);

// Whether that takes random numbers, which come for a whole parameter at once.
bool is_drawn(const VendorWeights& weights, std::int64_t vendor);

// A part of one vendor's packed weights: what a step reads, or some of its columns.
struct PackPiece {
  const Step* step = nullptr;
  std::int64_t first = 0, columns = 0;  // of every group
  std::int64_t at = 0;                  // bytes into the step's panels
};

// A program's weights in pieces that threads can share, for vendors that are not drawn.
std::vector<PackPiece> pack_pieces(const Program& program, const KernelTable& kernels, DType dtype);
// A piece for every step that has weights.
std::vector<PackPiece> pack_steps(const Program& program);

void pack_piece(const PackPiece& piece, const KernelTable& kernels, const TypedKernels& typed,
                const Model& model, const VendorWeights& weights, std::int64_t vendor,
                float* staging, std::byte* packed);

// All weights of one vendor as the steps want them. staging: (staging_floats,).
void pack_vendor(const Program& program, const KernelTable& kernels, const TypedKernels& typed,
                 const Model& model, const VendorWeights& weights, std::int64_t vendor,
                 float* staging, std::byte* packed);

struct RunArgs {
  const Model* model = nullptr;
  const std::byte* packed = nullptr;
  std::int64_t samples = 0;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  std::byte* scratch = nullptr;                    // scratch_bytes()
  float* statistics = nullptr;                     // 2 * largest_channels
  bool inference = false;                          // batch norms use running statistics
  std::vector<BatchStatistics>* leader = nullptr;  // where the leader's statistics go
};

void run_program(const Program& program, const TypedKernels& typed, std::int64_t element_bytes,
                 const RunArgs& args);

}  // namespace marketplace::cpu
