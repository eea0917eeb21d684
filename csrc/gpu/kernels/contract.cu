#include <algorithm>
#include <string>

#include "gpu/kernels/activation.h"
#include "gpu/kernels/contract.h"
#include "gpu/kernels/contract_sums.h"
#include "gpu/kernels/cross_entropy.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kMostRows = 1 << 30;  // of an image or a vendor's panel: see Divisor

// Vectors of neighbouring columns, for which a vendor's columns come in whole vectors.
template <class Out, int Rows, int Columns, class Activate>
__device__ void store_vectors(const ContractArgs& args, const Place& place, const float* result,
                              const Addresses<Rows, Columns>& to, Activate activated) {
  constexpr int kStride = Columns + 4, kVector = kVectorBytes / static_cast<int>(sizeof(Out));
  constexpr int kFloats = kVectorBytes / 4;
  for (int e = static_cast<int>(threadIdx.x); e < Rows * (Columns / kVector); e += kThreads) {
    const int i = e / (Columns / kVector), j = e % (Columns / kVector) * kVector;
    if (i >= place.rows || j >= place.columns) continue;
    alignas(kVectorBytes) float sums[kVector], bias[kVector];
    for (int n = 0; n < kVector; n += kFloats) {
      copy16(sums + n, result + i * kStride + j + n);
      copy16(bias + n, to.bias + j + n);
    }
    for (int n = 0; n < kVector; ++n) sums[n] = activated(sums[n] + bias[n]);
    store_rounded(sums, static_cast<Out*>(args.out) + to.row_out[i] + to.column_out[j]);
  }
}

template <class Out, int Rows, int Columns>
__device__ void store_elements(const ContractArgs& args, const Place& place, const float* result,
                               const Addresses<Rows, Columns>& to) {
  constexpr int kStride = Columns + 4;
  for (int e = static_cast<int>(threadIdx.x); e < Rows * Columns; e += kThreads) {
    const int i = e / Columns, j = e % Columns;
    if (i >= place.rows || j >= place.columns) continue;
    static_cast<Out*>(args.out)[to.row_out[i] + to.column_out[j]] =
        rounded<Out>(activate(args.activation, result[i * kStride + j] + to.bias[j]));
  }
}

template <class Out, int Rows, int Columns>
__device__ void store(const ContractArgs& args, const Place& place, const float* result,
                      const Addresses<Rows, Columns>& to) {
  constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(Out));
  if (args.columns % kVector != 0) return store_elements<Out>(args, place, result, to);
  with_activation(args.activation,
                  [&](auto activated) { store_vectors<Out>(args, place, result, to, activated); });
}

// The loss of every row and vendor of the tile; logits end here.
template <int Rows, int Columns>
__device__ void store_losses(const ContractArgs& args, const Place& place, float* result,
                             const Addresses<Rows, Columns>& to) {
  constexpr int kStride = Columns + 4;
  const auto classes = static_cast<int>(args.columns);
  const int vendors = place.columns / classes;
  for (int e = static_cast<int>(threadIdx.x); e < Rows * vendors; e += kThreads) {
    const int i = e % Rows, first = e / Rows * classes;
    if (i >= place.rows) continue;
    float* logits = result + i * kStride + first;
    for (int c = 0; c < classes; ++c)
      logits[c] = activate(args.activation, logits[c] + to.bias[first + c]);
    const std::int64_t vendor = place.first_vendor + e / Rows, row = place.first_image + i;
    const std::int64_t parent = row / args.samples, sample = row - parent * args.samples;
    args.loss.losses[(place.product.row + parent * args.vendors + vendor) * args.samples + sample] =
        sample_loss(logits, classes, args.loss.labels[sample], args.loss.ignoring,
                    args.loss.ignored);
  }
}

// Blocks that a multiprocessor's registers should have room for: what large tiles leave. Not every
// vendor asks.
[[maybe_unused]] constexpr int resident_blocks(int rows, int columns) {
  return rows * columns > 8192 ? 2 : rows * columns == 8192 ? 3 : 4;
}

template <class T, int Rows, int Columns, template <class, int> class Loader>
__global__ void MP_LAUNCH_BOUNDS(kThreads, resident_blocks(Rows, Columns))
    contract_kernel(ContractArgs args) {
  using Element = typename TileElement<T>::type;
  using Shape = Tile<Element, Rows, Columns>;
  __shared__ Addresses<Rows, Columns> addresses;
  std::byte* shared = dynamic_shared();
  const Place place = find_place(args, Rows);
  find_addresses(args, place, addresses);
  __syncthreads();
  Loader<Element, Rows> windows(args, addresses.start);
  PanelLoader<Element, Columns> panels(args, place);
  Sums<T, Rows, Columns> sums;
  sums.zero();
  const auto steps = static_cast<int>(args.padded_depth / Shape::kStep);
  const auto begin_fetch = [&](int step, std::byte* stage) {
    windows.begin(stage, step);
    panels.begin(stage + Rows * kRowBytes, step);
    copy_async_commit();
  };
  const auto end_fetch = [&](std::byte* stage) {
    windows.end(stage);
    panels.end(stage + Rows * kRowBytes);
  };
  // stages take turns
  const auto after = [](int stage) {
    return stage == kAhead * Shape::kStageBytes ? 0 : stage + Shape::kStageBytes;
  };
  int writing = 0, reading = 0, step = 0;  // bytes into the shared memory
  for (; step < kAhead && step < steps; ++step, writing = after(writing)) {
    begin_fetch(step, shared + writing);
    end_fetch(shared + writing);
  }
  for (; step < steps; ++step, writing = after(writing), reading = after(reading)) {
    copy_async_wait<kAhead - 1>();
    __syncthreads();  // the stage is there, and nobody reads the one that is fetched next
    begin_fetch(step, shared + writing);
    keep_order();  // what is fetched is on its way during the products
    sums.add(shared + reading, shared + reading + Rows * kRowBytes);
    sums.for_each([](int, int, float& value) { keep_order(value); });
    end_fetch(shared + writing);
  }
  for (; reading != writing; reading = after(reading)) {  // what is there
    copy_async_wait<0>();
    __syncthreads();
    sums.add(shared + reading, shared + reading + Rows * kRowBytes);
  }
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
    store<Element>(args, place, result, addresses);
}

struct Target {
  const DeviceInfo& device;
  const Stream& stream;
};

template <class T, int Rows, int Columns, template <class, int> class Loader>
void launch_tiles(ContractArgs args, const Target& target) {
  using Shape = Tile<typename TileElement<T>::type, Rows, Columns>;
  static_assert(Shape::kSharedBytes + sizeof(Addresses<Rows, Columns>) <= kMostSharedBytes);
  args.tile_columns =
      args.loss.labels ? Columns / args.columns * args.columns : std::int64_t{Columns};
  const std::int64_t rows = args.parents * args.samples * args.rows;
  const std::int64_t row_tiles = (rows + Rows - 1) / Rows;
  const std::int64_t column_tiles =
      (args.vendors * args.columns + args.tile_columns - 1) / args.tile_columns;
  // divisors are factors of a number of blocks, which launch() checks, or of what contract_gpu did
  args.by = {Divisor(args.rows), Divisor(args.columns), Divisor(args.out_width),
             Divisor(row_tiles), Divisor(column_tiles), Divisor(args.groups)};
  launch(contract_kernel<T, Rows, Columns, Loader>,
         Grid{args.product_count * args.groups * row_tiles * column_tiles},
         Block{static_cast<unsigned>(kWarps * target.device.warp_size)}, Shape::kSharedBytes,
         target.stream, args);
}

template <class T, template <class, int> class Loader>
void launch_shape(const ContractArgs& args, const Target& target) {
  const std::int64_t rows = args.parents * args.samples * args.rows;
  const std::int64_t columns = args.vendors * args.columns;
  const std::int64_t least = args.loss.labels ? args.columns : 1;  // a tile holds whole vendors
  if (columns <= 32 && least <= 32) return launch_tiles<T, 128, 32, Loader>(args, target);
  if (columns > 64 && (rows <= 32 || least > 64))
    return launch_tiles<T, 32, 128, Loader>(args, target);
  using Element = typename TileElement<T>::type;
  constexpr std::int64_t kNeeded = Tile<Element, 128, 128>::kSharedBytes +
                                   static_cast<std::int64_t>(sizeof(Addresses<128, 128>));
  // float32 would run out of registers
  if constexpr (sizeof(Element) == 2 && kNeeded <= kMostSharedBytes) {
    if (columns > 64 && kNeeded <= target.device.shared_bytes)
      return launch_tiles<T, 128, 128, Loader>(args, target);
  }
  launch_tiles<T, 128, 64, Loader>(args, target);
}

template <class T>
void launch_contract(const ContractArgs& args, const Target& target) {
  constexpr auto kVector =
      kVectorBytes / static_cast<std::int64_t>(sizeof(typename TileElement<T>::type));
  if (args.channels % kVector != 0 || args.group_stride % kVector != 0)
    launch_shape<T, ElementLoader>(args, target);
  else if (args.whole)
    launch_shape<T, WholeLoader>(args, target);
  else
    launch_shape<T, VectorLoader>(args, target);
}

}  // namespace

void contract_gpu(DType dtype, const DeviceInfo& device, ContractArgs args, const Stream& stream) {
  if (args.rows > kMostRows || args.columns > kMostRows)
    fail("product", "at most " + std::to_string(kMostRows) + " pixels and channels",
         std::to_string(std::max(args.rows, args.columns)));
  if constexpr (kHasTf32)
    if (dtype == DType::tf32) return launch_contract<Tf32>(args, {device, stream});
  dispatch(dtype,
           [&](auto element) { launch_contract<decltype(element)>(args, {device, stream}); });
}

}  // namespace marketplace::gpu
