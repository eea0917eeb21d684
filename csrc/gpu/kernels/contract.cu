#include "gpu/kernels/contract.h"

#include <algorithm>

#include "gpu/kernels/activation.h"
#include "gpu/kernels/cross_entropy.h"
#include "gpu/kernels/element.h"
#include "gpu/launch.h"
#include "gpu/tile_mma.h"

namespace marketplace::gpu {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kStages = 3;       // tiles in flight
constexpr int kVectorBytes = 16;
constexpr int kStepBytes = 64;   // of k in one tile
constexpr int kRowBytes = 80;    // 16 more, so that eight rows meet eight banks
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
      kStages * kStageBytes > kResultBytes ? kStages * kStageBytes : kResultBytes;
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

__device__ inline Start find_start(const ContractArgs& args, const Place& place,
                                   std::int64_t row) {
  if (row >= place.total_rows) return {0, -(1 << 30), 0};
  const std::int64_t image = row / args.rows + place.product.first_parent * args.samples;
  const auto pixel = static_cast<std::int32_t>(row % args.rows);
  const std::int32_t top = pixel / args.out_width * args.stride[0] - args.padding[0];
  const std::int32_t left = pixel % args.out_width * args.stride[1] - args.padding[1];
  const std::int64_t first = static_cast<std::int64_t>(top) * args.width + left;
  return {image * args.sample_stride + first * args.channels + place.group * args.group_stride,
          top, left};
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
    to.row_out[i] =
        ((place.product.row + parent * args.vendors) * each + row % each) * width +
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

// A block's sums. Matrix units: every warp holds a grid of 16 x 16 tiles.
template <class T, int Rows, int Columns>
class Sums {
 public:
  __device__ void zero() {
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTileColumns; ++j) sums_[i][j].zero();
  }

  __device__ void add(const std::byte* a, const std::byte* b) {
    const T* rows = reinterpret_cast<const T*>(a) + (first_row() + lane() % 16) * kStride;
    const T* columns = reinterpret_cast<const T*>(b) + first_column() * kStride;
    for (int k = 0; k < kStepBytes / static_cast<int>(sizeof(T)); k += 16) {
      TileA<T> left[kTileRows];
      for (int i = 0; i < kTileRows; ++i) left[i].load(rows + i * 16 * kStride + k);
      for (int j = 0; j < kTileColumns; ++j) {
        TileB<T> right;
        right.load(columns + j * 16 * kStride + k, kStride);
        for (int i = 0; i < kTileRows; ++i) mma(sums_[i][j], left[i], right);
      }
    }
  }

  // visit(row, column, value) for this thread's share of the block's tile.
  template <class Visit>
  __device__ void for_each(Visit visit) {
    for (int i = 0; i < kTileRows; ++i)
      for (int j = 0; j < kTileColumns; ++j)
        sums_[i][j].for_each([&](int row, int column, float& value) {
          visit(first_row() + i * 16 + row, first_column() + j * 16 + column, value);
        });
  }

 private:
  static constexpr int kStride = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kWarpColumns = Rows <= 32 ? kWarps : Columns <= 32 ? 1 : 2;
  static constexpr int kWarpRows = kWarps / kWarpColumns;
  static constexpr int kTileRows = Rows / kWarpRows / 16;
  static constexpr int kTileColumns = Columns / kWarpColumns / 16;

  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  __device__ static int first_row() { return warp() / kWarpColumns * kTileRows * 16; }
  __device__ static int first_column() { return warp() % kWarpColumns * kTileColumns * 16; }

  TileC<T> sums_[kTileRows][kTileColumns];
};

// Plain float32: every thread holds a grid of sums, rows and columns spread over the tile.
template <int Rows, int Columns>
class Sums<float, Rows, Columns> {
 public:
  __device__ void zero() {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j) sums_[i][j] = 0;
  }

  __device__ void add(const std::byte* a, const std::byte* b) {
    const float* rows = reinterpret_cast<const float*>(a) + row() * kStride;
    const float* columns = reinterpret_cast<const float*>(b) + column() * kStride;
    for (int k = 0; k < kStepBytes / 4; k += 4) {
      Float4 right[kColumns];
      for (int j = 0; j < kColumns; ++j)
        right[j] = *reinterpret_cast<const Float4*>(columns + j * kAcross * kStride + k);
      for (int i = 0; i < kRows; ++i) {
        const Float4 left = *reinterpret_cast<const Float4*>(rows + i * kDown * kStride + k);
        for (int j = 0; j < kColumns; ++j) {
          sums_[i][j] = fmaf(left.x, right[j].x, sums_[i][j]);
          sums_[i][j] = fmaf(left.y, right[j].y, sums_[i][j]);
          sums_[i][j] = fmaf(left.z, right[j].z, sums_[i][j]);
          sums_[i][j] = fmaf(left.w, right[j].w, sums_[i][j]);
        }
      }
    }
  }

  template <class Visit>
  __device__ void for_each(Visit visit) {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kColumns; ++j)
        visit(row() + i * kDown, column() + j * kAcross, sums_[i][j]);
  }

 private:
  struct alignas(16) Float4 {
    float x, y, z, w;
  };
  static constexpr int kStride = kRowBytes / 4;
  static constexpr int kDown = Rows <= 32 ? 8 : 16, kAcross = kThreads / kDown;
  static constexpr int kRows = Rows / kDown, kColumns = Columns / kAcross;

  __device__ static int row() { return static_cast<int>(threadIdx.x) / kAcross; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kAcross; }

  float sums_[kRows][kColumns];
};

// Vectors of neighbouring columns, for which a vendor's columns come in whole vectors.
template <class Out, int Rows, int Columns>
__device__ void store_vectors(const ContractArgs& args, const Place& place, const float* result,
                              const Addresses<Rows, Columns>& to) {
  constexpr int kStride = Columns + 4, kVector = kVectorBytes / static_cast<int>(sizeof(Out));
  for (int e = static_cast<int>(threadIdx.x); e < Rows * (Columns / kVector); e += kThreads) {
    const int i = e / (Columns / kVector), j = e % (Columns / kVector) * kVector;
    if (place.first_row + i >= place.total_rows || place.first_column + j >= place.total_columns)
      continue;
    alignas(kVectorBytes) Out values[kVector];
    for (int n = 0; n < kVector; ++n)
      values[n] = rounded<Out>(
          activate(args.activation, result[i * kStride + j + n] + to.bias[j + n]));
    store16(static_cast<Out*>(args.out) + to.row_out[i] + to.column_out[j], values);
  }
}

template <class Out, int Rows, int Columns>
__device__ void store_elements(const ContractArgs& args, const Place& place, const float* result,
                               const Addresses<Rows, Columns>& to) {
  constexpr int kStride = Columns + 4;
  for (int e = static_cast<int>(threadIdx.x); e < Rows * Columns; e += kThreads) {
    const int i = e / Columns, j = e % Columns;
    if (place.first_row + i >= place.total_rows || place.first_column + j >= place.total_columns)
      continue;
    static_cast<Out*>(args.out)[to.row_out[i] + to.column_out[j]] =
        rounded<Out>(activate(args.activation, result[i * kStride + j] + to.bias[j]));
  }
}

template <class Out, int Rows, int Columns>
__device__ void store(const ContractArgs& args, const Place& place, const float* result,
                      const Addresses<Rows, Columns>& to) {
  constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(Out));
  if (args.columns % kVector == 0)
    store_vectors<Out>(args, place, result, to);
  else
    store_elements<Out>(args, place, result, to);
}

// The loss of every row and vendor of the tile; logits end here.
template <int Rows, int Columns>
__device__ void store_losses(const ContractArgs& args, const Place& place, float* result,
                             const Addresses<Rows, Columns>& to) {
  constexpr int kStride = Columns + 4;
  const auto classes = static_cast<int>(args.columns);
  const int vendors = static_cast<int>(place.total_columns - place.first_column) / classes;
  for (int e = static_cast<int>(threadIdx.x); e < Rows * vendors; e += kThreads) {
    const int i = e % Rows, first = e / Rows * classes;
    const std::int64_t row = place.first_row + i;
    if (row >= place.total_rows) continue;
    float* logits = result + i * kStride + first;
    for (int c = 0; c < classes; ++c)
      logits[c] = activate(args.activation, logits[c] + to.bias[first + c]);
    const std::int64_t vendor = (place.first_column + first) / classes;
    const std::int64_t parent = row / args.samples, sample = row % args.samples;
    args.loss.losses[(place.product.row + parent * args.vendors + vendor) * args.samples +
                     sample] =
        sample_loss(logits, classes, args.loss.labels[sample], args.loss.ignoring,
                    args.loss.ignored);
  }
}

template <class T, int Rows, int Columns, template <class, int> class Loader>
__global__ void __launch_bounds__(kThreads) contract_kernel(ContractArgs args) {
  using Shape = Tile<T, Rows, Columns>;
  __shared__ Addresses<Rows, Columns> addresses;
  std::byte* shared = dynamic_shared();
  const Place place = find_place(args, Rows);
  find_addresses(args, place, addresses);
  __syncthreads();
  Loader<T, Rows> windows(args, addresses.start);
  PanelLoader<T, Columns> panels(args, place);
  Sums<T, Rows, Columns> sums;
  sums.zero();
  const std::int64_t steps = args.padded_depth / Shape::kStep;
  const auto fetch = [&](std::int64_t step) {
    std::byte* stage = shared + step % kStages * Shape::kStageBytes;
    if (step < steps) {
      windows.load(stage, step);
      panels.load(stage + Rows * kRowBytes, step);
    }
    copy_async_commit();
  };
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (std::int64_t step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // the stage is there, and nobody reads the one that is fetched next
    fetch(step + kStages - 1);
    const std::byte* stage = shared + step % kStages * Shape::kStageBytes;
    sums.add(stage, stage + Rows * kRowBytes);
  }
  copy_async_wait<0>();
  __syncthreads();  // stages become results
  auto* result = reinterpret_cast<float*>(shared);
  sums.for_each([&](int row, int column, float value) {
    result[row * Shape::kResultStride + column] = value;
  });
  __syncthreads();
  if (args.loss.labels)
    store_losses(args, place, result, addresses);
  else if (args.float_out)
    store<float>(args, place, result, addresses);
  else
    store<T>(args, place, result, addresses);
}

struct Target {
  const DeviceInfo& device;
  const Stream& stream;
};

template <class T, int Rows, int Columns, template <class, int> class Loader>
void launch_tiles(ContractArgs args, const Target& target) {
  args.tile_columns =
      args.loss.labels ? Columns / args.columns * args.columns : std::int64_t{Columns};
  const std::int64_t rows = args.parents * args.samples * args.rows;
  args.row_tiles = (rows + Rows - 1) / Rows;
  args.column_tiles = (args.vendors * args.columns + args.tile_columns - 1) / args.tile_columns;
  launch(contract_kernel<T, Rows, Columns, Loader>,
         Grid{args.product_count * args.groups * args.row_tiles * args.column_tiles},
         Block{static_cast<unsigned>(kWarps * target.device.warp_size)},
         Tile<T, Rows, Columns>::kSharedBytes, target.stream, args);
}

template <class T, template <class, int> class Loader>
void launch_shape(const ContractArgs& args, const Target& target) {
  const std::int64_t rows = args.parents * args.samples * args.rows;
  const std::int64_t columns = args.vendors * args.columns;
  const std::int64_t least = args.loss.labels ? args.columns : 1;  // a tile holds whole vendors
  if (columns <= 32 && least <= 32) return launch_tiles<T, 128, 32, Loader>(args, target);
  if (columns > 64 && (rows <= 32 || least > 64))
    return launch_tiles<T, 32, 128, Loader>(args, target);
  if constexpr (sizeof(T) == 2) {  // float32 would run out of registers
    constexpr std::int64_t kNeeded =
        Tile<T, 128, 128>::kSharedBytes + static_cast<std::int64_t>(sizeof(Addresses<128, 128>));
    if (columns > 64 && kNeeded <= target.device.shared_bytes)
      return launch_tiles<T, 128, 128, Loader>(args, target);
  }
  launch_tiles<T, 128, 64, Loader>(args, target);
}

template <class T>
void launch_contract(const ContractArgs& args, const Target& target) {
  constexpr std::int64_t kVector = kVectorBytes / static_cast<std::int64_t>(sizeof(T));
  if (args.channels % kVector == 0 && args.group_stride % kVector == 0)
    launch_shape<T, VectorLoader>(args, target);
  else
    launch_shape<T, ElementLoader>(args, target);
}

}  // namespace

void contract_gpu(DType dtype, const DeviceInfo& device, ContractArgs args, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    launch_contract<decltype(element)>(args, {device, stream});
  });
}

}  // namespace marketplace::gpu
