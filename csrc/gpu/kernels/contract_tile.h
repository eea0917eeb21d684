// A block's tile of the product: what it covers, where its operands come from and its results go.
// Only contract.cu includes this.
#pragma once

#include "gpu/kernels/contract.h"
#include "gpu/kernels/element.h"

namespace marketplace::gpu {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kStages = 3;  // tiles in flight
constexpr int kVectorBytes = 16;
constexpr int kStepBytes = 64;  // of k in one tile
constexpr int kRowBytes = 80;   // 16 more, so that eight rows meet eight banks
constexpr int kRowVectors = kStepBytes / kVectorBytes;

// The first pixel of a result's window. Rows behind the last lie above every image.
struct Start {
  std::int64_t offset;
  std::int32_t top, left;
};

template <class T, int Rows, int Columns>
struct Tile {
  static constexpr int kStep = kStepBytes / static_cast<int>(sizeof(T));
  static constexpr int kStageBytes = (Rows + Columns) * kRowBytes;
  static constexpr int kResultStride = Columns + 4;
  static constexpr int kResultBytes = Rows * kResultStride * 4;
  static constexpr int kSharedBytes =
      kStages * kStageBytes > kResultBytes ? kStages* kStageBytes : kResultBytes;
};

// What one block works on, decoded once.
struct Place {
  std::int64_t first_row, first_column, group;  // of the product
  std::int64_t total_rows, total_columns;
  Product product;
};

__device__ inline Place find_place(const ContractArgs& args, int tile_rows) {
  std::int64_t index = blockIdx.x;
  Place place;
  place.first_column = index % args.column_tiles * args.tile_columns;
  index /= args.column_tiles;
  place.first_row = index % args.row_tiles * tile_rows;
  index /= args.row_tiles;
  place.group = index % args.groups;
  place.product = args.products[index / args.groups];
  place.total_rows = args.parents * args.samples * args.rows;
  place.total_columns = args.vendors * args.columns;
  const std::int64_t end = place.first_column + args.tile_columns;
  if (end < place.total_columns) place.total_columns = end;
  return place;
}

__device__ inline Start find_start(const ContractArgs& args, const Place& place, std::int64_t row) {
  if (row >= place.total_rows) return {0, -(1 << 30), 0};
  const std::int64_t image = row / args.rows + place.product.first_parent * args.samples;
  const auto pixel = static_cast<std::int32_t>(row % args.rows);
  const std::int32_t top = pixel / args.out_width * args.stride[0] - args.padding[0];
  const std::int32_t left = pixel % args.out_width * args.stride[1] - args.padding[1];
  const std::int64_t first = static_cast<std::int64_t>(top) * args.width + left;
  return {image * args.sample_stride + first * args.channels + place.group * args.group_stride, top,
          left};
}

__device__ inline bool inside(const ContractArgs& args, const Start& start, const Tap& tap) {
  return static_cast<std::uint32_t>(start.top + tap.down) <
             static_cast<std::uint32_t>(args.height) &&
         static_cast<std::uint32_t>(start.left + tap.right) <
             static_cast<std::uint32_t>(args.width);
}

// Where the results of a tile's rows and columns go: out[row_out[i] + column_out[j]].
template <int Rows, int Columns>
struct Addresses {
  Start start[Rows];
  std::int64_t row_out[Rows], column_out[Columns];
  float bias[Columns];
};

template <int Rows, int Columns>
__device__ inline void find_addresses(const ContractArgs& args, const Place& place,
                                      Addresses<Rows, Columns>& to) {
  const std::int64_t each = args.samples * args.rows, width = args.columns * args.groups;
  for (int i = static_cast<int>(threadIdx.x); i < Rows; i += kThreads) {
    const std::int64_t row = place.first_row + i;
    to.start[i] = find_start(args, place, row);
    const std::int64_t parent = row / each;
    to.row_out[i] = ((place.product.row + parent * args.vendors) * each + row % each) * width +
                    place.group * args.columns;
  }
  for (int j = static_cast<int>(threadIdx.x); j < Columns; j += kThreads) {
    const std::int64_t column = place.first_column + j;
    to.bias[j] = 0;
    to.column_out[j] = 0;
    if (column >= place.total_columns) continue;
    const std::int64_t vendor = column / args.columns, channel = column % args.columns;
    to.column_out[j] = vendor * each * width + channel;
    if (args.bias_at < 0) continue;
    const auto* bias = reinterpret_cast<const float*>(
        args.packed + (place.product.first_vendor + vendor) * args.packed_stride + args.bias_at);
    to.bias[j] = bias[place.group * args.columns + channel];
  }
}

// Brings the panels' columns of one k-step after another into shared memory.
template <class T, int Columns>
class PanelLoader {
 public:
  static constexpr int kCount = (Columns * kRowVectors + kThreads - 1) / kThreads;

  __device__ PanelLoader(const ContractArgs& args, const Place& place) {
    for (int i = 0; i < kCount; ++i) {
      const std::int64_t column = place.first_column + local_column(i);
      valid_[i] = local_column(i) < Columns && column < place.total_columns;
      from_[i] = args.packed;
      if (!valid_[i]) continue;
      const std::int64_t vendor = place.product.first_vendor + column / args.columns;
      const std::int64_t channel = place.group * args.columns + column % args.columns;
      from_[i] += vendor * args.packed_stride + args.weight_at +
                  channel * args.padded_depth * static_cast<std::int64_t>(sizeof(T)) +
                  part() * kVectorBytes;
    }
  }

  __device__ void load(std::byte* to, std::int64_t step) {
    for (int i = 0; i < kCount; ++i)
      if (local_column(i) < Columns)
        copy16_async(to + local_column(i) * kRowBytes + part() * kVectorBytes,
                     valid_[i] ? from_[i] + step * kStepBytes : from_[i], valid_[i]);
  }

 private:
  __device__ static int part() { return static_cast<int>(threadIdx.x) % kRowVectors; }
  __device__ static int local_column(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads) / kRowVectors;
  }

  const std::byte* from_[kCount];
  bool valid_[kCount];
};

// Brings the windows of one k-step after another into shared memory; vectors of neighbouring
// channels at once, for which channels of a group come in whole vectors.
template <class T, int Rows>
class VectorLoader {
 public:
  static constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));
  static constexpr int kCount = (Rows * kRowVectors + kThreads - 1) / kThreads;

  __device__ VectorLoader(const ContractArgs& args, const Start* start) : args_(args) {
    for (int i = 0; i < kCount; ++i)
      if (local_row(i) < Rows) start_[i] = start[local_row(i)];
  }

  __device__ void load(std::byte* to, std::int64_t step) {
    const Tap tap = args_.taps[(step * kRowVectors + part()) * kVector];
    const T* in = static_cast<const T*>(args_.in);
    for (int i = 0; i < kCount; ++i) {
      if (local_row(i) >= Rows) continue;
      const bool valid = inside(args_, start_[i], tap);
      copy16_async(to + local_row(i) * kRowBytes + part() * kVectorBytes,
                   valid ? in + start_[i].offset + tap.offset : in, valid);
    }
  }

 private:
  __device__ static int part() { return static_cast<int>(threadIdx.x) % kRowVectors; }
  __device__ static int local_row(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads) / kRowVectors;
  }

  const ContractArgs& args_;
  Start start_[kCount];
};

template <class T, int Rows>
class ElementLoader {
 public:
  static constexpr int kStep = kStepBytes / static_cast<int>(sizeof(T));

  __device__ ElementLoader(const ContractArgs& args, const Start* start)
      : args_(args), start_(start) {}

  __device__ void load(std::byte* to, std::int64_t step) {
    const int k = static_cast<int>(threadIdx.x) % kStep;
    const Tap tap = args_.taps[step * kStep + k];
    const T* in = static_cast<const T*>(args_.in);
    for (int row = static_cast<int>(threadIdx.x) / kStep; row < Rows; row += kThreads / kStep) {
      const Start start = start_[row];
      T value = rounded<T>(0.0f);
      if (inside(args_, start, tap)) value = in[start.offset + tap.offset];
      reinterpret_cast<T*>(to + row * kRowBytes)[k] = value;
    }
  }

 private:
  const ContractArgs& args_;
  const Start* start_;
};

}  // namespace marketplace::gpu
