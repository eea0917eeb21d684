// A block's tile of the product: what it covers, where its operands come from and its results go.
// Only contract.cu includes this.
#pragma once

#include "gpu/kernels/contract.h"
#include "gpu/kernels/element.h"

namespace marketplace::gpu {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kAhead = kCopyStages - 1;  // k-steps that are fetched before they are multiplied
constexpr int kVectorBytes = 16;
constexpr int kStepBytes = 64;  // of k in one tile
constexpr int kRowBytes = 80;   // 16 more, so that eight rows meet eight banks
constexpr int kRowVectors = kStepBytes / kVectorBytes;

// The first pixel of a result's window. Rows behind the last lie above every image.
struct alignas(16) Start {
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
      kCopyStages * kStageBytes > kResultBytes ? kCopyStages* kStageBytes : kResultBytes;
};

// What one block works on, decoded once.
struct Place {
  int rows, columns;                       // that the product has of this tile
  std::int64_t first_image, first_vendor;  // where the tile begins in the product
  std::uint32_t first_pixel, first_channel;
  std::int64_t group;
  Product product;
};

// How many of `most` numbers from `first` on lie below `end`.
__device__ inline int count_below(std::int64_t end, std::int64_t first, std::int64_t most) {
  return static_cast<int>(end - first < most ? end - first : most);
}

__device__ inline Place find_place(const ContractArgs& args, int tile_rows) {
  const Division columns = args.by.column_tiles.divide(blockIdx.x);
  const Division rows = args.by.row_tiles.divide(columns.quotient);
  const Division groups = args.by.groups.divide(rows.quotient);
  const std::int64_t first_row = static_cast<std::int64_t>(rows.remainder) * tile_rows;
  const std::int64_t first_column = columns.remainder * args.tile_columns;
  Place place;
  place.rows = count_below(args.parents * args.samples * args.rows, first_row, tile_rows);
  place.columns = count_below(args.vendors * args.columns, first_column, args.tile_columns);
  place.first_image = first_row / args.rows;
  place.first_pixel = static_cast<std::uint32_t>(first_row - place.first_image * args.rows);
  place.first_vendor = first_column / args.columns;
  place.first_channel =
      static_cast<std::uint32_t>(first_column - place.first_vendor * args.columns);
  place.group = groups.remainder;
  place.product = args.products[groups.quotient];
  return place;
}

// image: of the product's.
__device__ inline Start find_start(const ContractArgs& args, const Place& place, std::int64_t image,
                                   std::uint32_t pixel) {
  const Division at = args.by.out_width.divide(pixel);
  const auto top = static_cast<std::int32_t>(at.quotient) * args.stride[0] - args.padding[0];
  const auto left = static_cast<std::int32_t>(at.remainder) * args.stride[1] - args.padding[1];
  const std::int64_t first = static_cast<std::int64_t>(top) * args.width + left;
  return {(image + place.product.first_parent * args.samples) * args.sample_stride +
              first * args.channels + place.group * args.group_stride,
          top, left};
}

__device__ inline bool inside(const ContractArgs& args, const Start& start, const Tap& tap) {
  const bool rows =
      static_cast<std::uint32_t>(start.top + tap.down) < static_cast<std::uint32_t>(args.height);
  const bool columns =
      static_cast<std::uint32_t>(start.left + tap.right) < static_cast<std::uint32_t>(args.width);
  return rows & columns;  // no branch
}

// Where the results of a tile's rows and columns go: out[row_out[i] + column_out[j]].
template <int Rows, int Columns>
struct alignas(kVectorBytes) Addresses {
  Start start[Rows];
  std::int64_t row_out[Rows], column_out[Columns];
  float bias[Columns];
};

template <int Rows, int Columns>
__device__ inline void find_addresses(const ContractArgs& args, const Place& place,
                                      Addresses<Rows, Columns>& to) {
  const std::int64_t each = args.samples * args.rows, width = args.columns * args.groups;
  for (int i = static_cast<int>(threadIdx.x); i < Rows; i += kThreads) {
    const Division at = args.by.rows.divide(place.first_pixel + static_cast<std::uint32_t>(i));
    const std::int64_t image = place.first_image + at.quotient, parent = image / args.samples;
    const std::int64_t sample = image - parent * args.samples;
    to.start[i] =
        i < place.rows ? find_start(args, place, image, at.remainder) : Start{0, -(1 << 30), 0};
    to.row_out[i] =
        ((place.product.row + parent * args.vendors) * each + sample * args.rows + at.remainder) *
            width +
        place.group * args.columns;
  }
  for (int j = static_cast<int>(threadIdx.x); j < Columns; j += kThreads) {
    to.bias[j] = 0;
    to.column_out[j] = 0;
    if (j >= place.columns) continue;
    const Division at = args.by.columns.divide(place.first_channel + static_cast<std::uint32_t>(j));
    const std::int64_t vendor = place.first_vendor + at.quotient, channel = at.remainder;
    to.column_out[j] = vendor * each * width + channel;
    if (args.bias_at < 0) continue;
    const auto* bias = reinterpret_cast<const float*>(
        args.packed + (place.product.first_vendor + vendor) * args.packed_stride + args.bias_at);
    to.bias[j] = bias[place.group * args.columns + channel];
  }
}

// Which 16 bytes of a k-step a thread brings: part `part()` of lines line(0), line(1) ... of
// `Lines`.
template <int Lines>
struct Share {
  static constexpr int kLines = kThreads / kRowVectors;  // of all threads at once
  static constexpr int kCount = (Lines + kLines - 1) / kLines;

  __device__ static int part() { return static_cast<int>(threadIdx.x) % kRowVectors; }
  // Of every eight lines in the order 0, 4, 1, 5, 2, 6, 3, 7: shared memory takes eight vectors at
  // a time, and rows four apart lie in different banks.
  __device__ static int line(int i) {
    const int line = static_cast<int>(threadIdx.x) / kRowVectors;
    return (line & ~7) + (line & 1) * 4 + (line >> 1 & 3) + i * kLines;
  }
  __device__ static std::byte* place(std::byte* tile, int i) {
    return tile + line(0) * kRowBytes + part() * kVectorBytes + i * kLines * kRowBytes;
  }
  __device__ static bool has(int i) { return Lines % kLines == 0 || line(i) < Lines; }
};

// Brings the panels' columns of one k-step after another into shared memory: begin() and, behind
// what there is to do meanwhile, end().
template <class T, int Columns>
class PanelLoader {
 public:
  __device__ PanelLoader(const ContractArgs& args, const Place& place) {
    for (int i = 0; i < Mine::kCount; ++i) {
      from_[i] = args.packed;  // where there is as much to read; nobody reads such columns' sums
      if (Mine::line(i) >= place.columns) continue;
      const Division at =
          args.by.columns.divide(place.first_channel + static_cast<std::uint32_t>(Mine::line(i)));
      const std::int64_t vendor = place.product.first_vendor + place.first_vendor + at.quotient;
      const std::int64_t channel = place.group * args.columns + at.remainder;
      from_[i] += vendor * args.packed_stride + args.weight_at +
                  channel * args.padded_depth * static_cast<std::int64_t>(sizeof(T)) +
                  Mine::part() * kVectorBytes;
    }
  }

  __device__ void begin(std::byte* to, int step) {
    for (int i = 0; i < Mine::kCount; ++i)
      if (Mine::has(i))
        copies_[i].begin(Mine::place(to, i),
                         from_[i] + static_cast<std::int64_t>(step) * kStepBytes, true);
  }
  __device__ void end(std::byte* to) const {
    for (int i = 0; i < Mine::kCount; ++i)
      if (Mine::has(i)) copies_[i].end(Mine::place(to, i));
  }

 private:
  using Mine = Share<Columns>;
  const std::byte* from_[Mine::kCount];
  Copy16 copies_[Mine::kCount];
};

// Brings the windows of one k-step after another into shared memory; vectors of neighbouring
// channels at once, for which channels of a group come in whole vectors.
template <class T, int Rows, bool Whole>
class VectorsLoader {
 public:
  static constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));
  static constexpr int kStep = kStepBytes / static_cast<int>(sizeof(T));

  __device__ VectorsLoader(const ContractArgs& args, const Start* start)
      : args_(args), tap_(tap_of(0)) {
    for (int i = 0; i < Mine::kCount; ++i)
      start_[i] = Mine::has(i) ? load16(start + Mine::line(i)) : Start{};
  }

  // One step after the other.
  __device__ void begin(std::byte* to, int step) {
    // on its way while the tile's products are computed
    if ((step + 1) * kStep < args_.padded_depth) next_ = tap_of(step + 1);
    const T* in = static_cast<const T*>(args_.in);
    for (int i = 0; i < Mine::kCount; ++i) {
      if (!Mine::has(i)) continue;
      const bool valid = Whole || inside(args_, start_[i], tap_);
      copies_[i].begin_reused(Mine::place(to, i), valid ? in + start_[i].offset + tap_.offset : in,
                              valid);
    }
  }
  __device__ void end(std::byte* to) {
    for (int i = 0; i < Mine::kCount; ++i)
      if (Mine::has(i)) copies_[i].end(Mine::place(to, i));
    tap_ = next_;
  }

 private:
  using Mine = Share<Rows>;

  __device__ Tap tap_of(int step) const {
    return load16(args_.taps + step * kStep + Mine::part() * kVector);
  }

  const ContractArgs& args_;
  Tap tap_, next_ = {};  // of the step to begin and of the one behind it
  Start start_[Mine::kCount];
  Copy16 copies_[Mine::kCount];
};

template <class T, int Rows>
using VectorLoader = VectorsLoader<T, Rows, false>;
// Where windows are whole. Rows behind the last read the first image, and nobody their sums.
template <class T, int Rows>
using WholeLoader = VectorsLoader<T, Rows, true>;

template <class T, int Rows>
class ElementLoader {
 public:
  static constexpr int kStep = kStepBytes / static_cast<int>(sizeof(T));

  __device__ ElementLoader(const ContractArgs& args, const Start* start)
      : args_(args), start_(start) {}

  __device__ void begin(std::byte* to, int step) const {
    const int k = static_cast<int>(threadIdx.x) % kStep;
    const Tap tap = load16(args_.taps + step * kStep + k);
    const T* in = static_cast<const T*>(args_.in);
    for (int row = static_cast<int>(threadIdx.x) / kStep; row < Rows; row += kThreads / kStep) {
      const Start start = load16(start_ + row);
      T value = rounded<T>(0.0f);
      if (inside(args_, start, tap)) value = in[start.offset + tap.offset];
      reinterpret_cast<T*>(to + row * kRowBytes)[k] = value;
    }
  }
  __device__ void end(std::byte*) const {}

 private:
  const ContractArgs& args_;
  const Start* start_;
};

}  // namespace marketplace::gpu
