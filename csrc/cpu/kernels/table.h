// The kernels of one instruction set, as a table of functions. This header is all that the rest of
// the CPU backend knows of them. Elements T are float or bfloat16; everything sums in float32.
#pragma once

#include <cstdint>

#include "core/walsh.h"

namespace marketplace::cpu {

// Matrix units take so many rows and steps of k at once. Their panels come in whole steps.
constexpr std::int64_t kMatrixRows = 16, kMatrixSteps = 32;

// How matrix units load one sample's rows: where they lie, in `segments` of `positions`, `step`
// elements apart. Of every `pitch` positions the first `line` are rows; those between two lines of
// an image are multiplied along and dropped. Or `gathered`: copied side by side first.
struct TileRows {
  std::int64_t segments, positions, line, pitch, step;
  bool gathered;
};

// What one run adds to one step of a gathered row: element l of the step, for every bit l of
// `lanes`, is element offset + l of the image, counted from the row's first.
struct TilePiece {
  std::int64_t offset;
  std::uint32_t lanes;
  bool last;  // of its step
};

// Elements between gathered rows: an odd number of cache lines, so that rows spread over its sets.
constexpr std::int64_t gathered_stride(std::int64_t panel_depth) {
  return (panel_depth / kMatrixSteps | 1) * kMatrixSteps;
}

// out[s, r, o] = act(bias[o] + sum over runs j, steps k of in[s, row_offset[r] + run_offset[j] + k]
// * w[j, k, o]): a convolution over a channels-last image, or a linear layer.
struct ContractArgs {
  const void* in;
  std::int64_t sample_stride;  // elements between samples of `in`
  std::int64_t samples;
  const std::int64_t* row_offset;  // (rows) of one sample
  std::int64_t rows;
  TileRows tiles;           // for matrix units alone
  const TilePiece* pieces;  // of gathered rows
  std::int64_t piece_count;
  const std::int64_t* run_offset;  // (runs)
  std::int64_t runs, run_length;
  const void* panel;  // weights as packed by pack_panel
  std::int64_t columns;
  const float* bias;  // (columns) or null
  bool relu;
  bool float_out;               // `out` is float32 whatever the elements of `in`
  void* out;                    // element (0, 0, 0)
  std::int64_t out_row_stride;  // elements; rows of all samples follow one another
  void* workspace;              // for gathered rows
  std::int64_t workspace_bytes;
};

// weights (columns, depth) row-major, depth = runs * run_length -> panels of up to vector_floats *
// tile_vectors columns, [block][run][step][column]; bfloat16 interleaves two steps, an odd run ends
// in a zero, and zeros fill the panel up to `panel_depth` steps. Element k of a column becomes step
// `target[k]`, counted over all runs.
struct PackArgs {
  const float* weights;
  std::int64_t columns, runs, run_length, panel_depth;
  const std::int64_t* target;  // (runs * run_length)
  void* panel;
  float* staging;  // (runs * run_length * vector_floats * tile_vectors)
};

// out[s, h, w, o] = act(bias[o] + kernel x kernel convolution of stride 1), by minimal filtering on
// tiles of `outputs` x `outputs` pixels; see winograd.h. Any height, width and padding.
struct WinogradArgs {
  int kernel, outputs;  // 3 and 2 to 4, or 5 and 2
  const void* in;       // (samples, height, width, channels)
  void* out;            // (samples, out_height, out_width, columns)
  std::int64_t samples, height, width, channels, out_height, out_width, columns;
  std::int64_t padding[2];
  const void* panel;  // weights as packed by winograd_pack
  const float* bias;  // (columns) or null
  bool relu;
  std::int64_t block;  // tiles at once
  void* workspace;     // winograd_workspace_bytes()
};

// weights (columns, channels, kernel, kernel), transformed -> [block][(outputs + kernel - 1)^2
// planes], each plane a panel of pack_panel's with one run of all channels.
struct WinogradPackArgs {
  int kernel, outputs;
  const float* weights;
  std::int64_t columns, channels;
  const std::int64_t* target;  // (channels * kernel^2): 0, 1, 2, ...
  void* panel;
  float* staging;  // (channels * kernel^2 * vector_floats * tile_vectors)
};

// out[s, r, o] = act(bias[o] + convolution with groups so small that several share a vector of
// columns); rows and runs as in ContractArgs, of the first group's channels.
struct GroupedArgs {
  const void* in;
  std::int64_t sample_stride, samples;
  const std::int64_t* row_offset;  // (rows) of one sample
  std::int64_t rows;
  const std::int64_t* run_offset;  // (runs): pixels of the kernel
  std::int64_t runs, groups;
  std::int64_t group_inputs, group_outputs;  // channels of a group
  const float* panel;                        // weights as packed by grouped_pack
  const float* bias;                         // (columns) or null
  bool relu;
  void* out;                    // element (0, 0, 0)
  std::int64_t out_row_stride;  // elements
};

// weights (columns, depth) row-major, depth = group_inputs * runs -> [block][step][lane], rounded
// to the element type but stored as float32; lanes without a column are zero.
struct GroupedPackArgs {
  const float* weights;
  std::int64_t columns, depth, group_inputs, group_outputs;
  const std::int64_t* target;  // (depth), as in PackArgs
  float* panel;
};

struct PoolArgs {
  const void* in;  // (samples, H, W, C)
  void* out;       // (samples, out_h, out_w, C)
  std::int64_t samples, height, width, channels, out_height, out_width;
  std::int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool count_include_pad;
};

// Normalises (rows, channels) per channel over rows, or per row over a line; see norm.h.
struct NormArgs {
  const void* in;
  void* out;
  std::int64_t groups, rows, channels;  // statistics per (group, channel) over rows
  const float* weight;                  // (channels) or null
  const float* bias;
  float eps;
  float* mean;  // (channels): given if `fixed`, else left behind, of the last group
  float* variance;
  bool fixed;
  bool relu;             // channel_norm alone
  const PoolArgs* pool;  // max-pools the result on the way out: windows side by side, no padding
};

struct CrossEntropyArgs {
  const float* logits;  // rows of `classes`, `stride` elements apart
  std::int64_t stride, samples, classes;
  const std::int32_t* labels;  // (samples)
  bool has_ignore;
  std::int32_t ignore;
  double* losses;  // (samples), 0 where the label is ignored
};

enum class Unary : int { relu, gelu, gelu_tanh, sigmoid, tanh };

// Kernels that exist once per element type.
struct TypedKernels {
  void (*contract)(const ContractArgs&);
  void (*pack_panel)(const PackArgs&);
  void (*winograd)(const WinogradArgs&);
  void (*winograd_pack)(const WinogradPackArgs&);
  void (*grouped)(const GroupedArgs&);
  void (*grouped_pack)(const GroupedPackArgs&);
  void (*max_pool)(const PoolArgs&);
  void (*avg_pool)(const PoolArgs&);
  void (*channel_norm)(
      const NormArgs&);                 // instance_norm: a group per sample; batch_norm: one group
  void (*layer_norm)(const NormArgs&);  // a group per line of `channels` elements, rows ignored
  void (*unary)(Unary kind, const void* in, void* out, std::int64_t count);
  void (*affine)(float scale, float shift, const void* in, void* out, std::int64_t count);
  void (*add)(const void* a, const void* b, void* out, std::int64_t count, bool relu);
  void (*multiply)(const void* a, const void* b, void* out, std::int64_t count);
  // (samples, a, b) -> (samples, b, a): planar (C, HW) <-> channels-last (HW, C)
  void (*transpose)(const void* in, void* out, std::int64_t samples, std::int64_t a,
                    std::int64_t b);
  // (outer, axis, inner) -> (outer, inner) means
  void (*mean)(const void* in, void* out, std::int64_t outer, std::int64_t axis,
               std::int64_t inner);
  // (samples, H, W, C) -> (samples, H + 2ph, W + 2pw, C), zeros around
  void (*pad)(const void* in, void* out, std::int64_t samples, std::int64_t height,
              std::int64_t width, std::int64_t channels, std::int64_t pad_h, std::int64_t pad_w);
  void (*from_float)(const float* in, void* out, std::int64_t count);
  void (*from_uint8)(const std::uint8_t* in, void* out, std::int64_t count);
  void (*to_float)(const void* in, float* out, std::int64_t count);
};

struct KernelTable {
  const char* name;
  int vector_floats, tile_vectors;
  bool matrix_units;  // multiply bfloat16
  TypedKernels float32, bfloat16;

  // out = base + delta, for a tensor of n numbers at `counter`
  void (*perturb)(std::uint64_t seed, std::uint32_t counter, float amplitude, const float* base,
                  float* out, std::int64_t n);
  // out0[j], out1[j] += coefficient * delta for random blocks [first, first + count) of a tensor of
  // `half` blocks: lane 0 of block j is element j, lane 1 element half + j
  void (*accumulate_delta)(std::uint64_t seed, std::uint32_t counter, float amplitude,
                           float coefficient, std::int64_t half, std::int64_t first,
                           std::int64_t count, float* out0, float* out1);
  void (*cross_entropy)(const CrossEntropyArgs&);
  // out = a + scale * b
  void (*add_scaled)(const float* a, const float* b, float scale, float* out, std::int64_t count);
  // Node perturbation, see signs.h.
  void (*random_words)(std::uint64_t key, std::uint32_t sample, std::int64_t count,
                       std::uint32_t* out);
  // out = x + scale * sign, (pixels, channels)
  void (*add_signs)(const float* x, const ProbeSigns& signs, float scale, std::int64_t pixels,
                    std::int64_t channels, float* out);
  // total (pixels, channels) += sign * values (channels)
  void (*accumulate_signs)(const float* values, const ProbeSigns& signs, std::int64_t pixels,
                           std::int64_t channels, float* total);
};

}  // namespace marketplace::cpu
