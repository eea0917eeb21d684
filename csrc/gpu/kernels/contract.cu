#include <algorithm>
#include <string>

#include "gpu/kernels/activation.h"
#include "gpu/kernels/contract.h"
#include "gpu/kernels/contract_resident.h"
#include "gpu/kernels/contract_sums.h"
#include "gpu/kernels/cross_entropy.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kMostRows = 1 << 30;  // of an image or a vendor's panel: see Divisor

// Vectors of neighbouring columns, for which a vendor's columns come in whole vectors. A thread
// keeps to its columns.
template <class Out, int Rows, int Columns, class Activate>
__device__ void store_vectors(const ContractArgs& args, const Place& place, const float* result,
                              const Addresses<Rows, Columns>& to, Activate activated) {
  constexpr int kStride = Columns + 4, kVector = kVectorBytes / static_cast<int>(sizeof(Out));
  constexpr int kFloats = kVectorBytes / 4, kAcross = Columns / kVector;
  const int j = static_cast<int>(threadIdx.x) % kAcross * kVector;
  if (j >= place.columns) return;
  alignas(kVectorBytes) float sums[kVector], bias[kVector];
  for (int n = 0; n < kVector; n += kFloats) copy16(bias + n, to.bias + j + n);
  Out* out = static_cast<Out*>(args.out) + to.column_out[j];
  for (int i = static_cast<int>(threadIdx.x) / kAcross; i < place.rows; i += kThreads / kAcross) {
    for (int n = 0; n < kVector; n += kFloats) copy16(sums + n, result + i * kStride + j + n);
    for (int n = 0; n < kVector; ++n) sums[n] = activated(sums[n] + bias[n]);
    store_rounded(sums, out + to.row_out[i]);
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
[[maybe_unused]] constexpr int blocks_wanted(int rows, int columns) {
  return rows * columns > 8192 ? 2 : rows * columns == 8192 ? 3 : 4;
}

// Stages take turns: one is multiplied while the next ones are fetched.
template <int StageBytes, class Begin, class End, class Multiply>
__device__ void run_steps(int steps, std::byte* shared, Begin begin_fetch, End end_fetch,
                          Multiply multiply) {
  const auto after = [](int stage) {
    return stage == kAhead * StageBytes ? 0 : stage + StageBytes;
  };
  int writing = 0, reading = 0, step = 0;  // bytes into the shared memory
  for (; step < kAhead && step < steps; ++step, writing = after(writing)) {
    begin_fetch(step, shared + writing);
    copy_async_commit();
    end_fetch(shared + writing);
  }
  for (; step < steps; ++step, writing = after(writing), reading = after(reading)) {
    copy_async_wait<kAhead - 1>();
    __syncthreads();  // the stage is there, and nobody reads the one that is fetched next
    begin_fetch(step, shared + writing);
    copy_async_commit();
    keep_order();  // what is fetched is on its way during the products
    multiply(shared + reading);
    end_fetch(shared + writing);
  }
  for (; reading != writing; reading = after(reading)) {  // what is there
    copy_async_wait<0>();
    __syncthreads();
    multiply(shared + reading);
  }
}

// Sums become results, by way of the shared memory that the stages had.
template <class T, int Rows, int Columns>
__device__ void finish(const ContractArgs& args, const Place& place, Sums<T, Rows, Columns>& sums,
                       std::byte* shared, const Addresses<Rows, Columns>& addresses) {
  using Element = typename TileElement<T>::type;
  __syncthreads();
  auto* result = reinterpret_cast<float*>(shared);
  sums.for_each([&](int row, int column, float value) {
    result[row * Tile<Element, Rows, Columns>::kResultStride + column] = value;
  });
  __syncthreads();
  if (args.loss.labels)
    store_losses(args, place, result, addresses);
  else if (args.float_out)
    store<float>(args, place, result, addresses);
  else
    store<Element>(args, place, result, addresses);
}

// Or the compiler computes products of different steps side by side, where sums have no room.
template <class Sums>
__device__ void keep_sums(Sums& sums) {
  sums.for_each([](int, int, float& value) { keep_order(value); });
}

template <class T, int Rows, int Columns, template <class, int> class Loader>
__global__ void MP_LAUNCH_BOUNDS(kThreads, blocks_wanted(Rows, Columns))
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
  run_steps<Shape::kStageBytes>(
      static_cast<int>(args.padded_depth / Shape::kStep), shared,
      [&](int step, std::byte* stage) {
        windows.begin(stage, step);
        panels.begin(stage + Rows * kRowBytes, step);
      },
      [&](std::byte* stage) {
        windows.end(stage);
        panels.end(stage + Rows * kRowBytes);
      },
      [&](std::byte* stage) {
        sums.add(stage, stage + Rows * kRowBytes);
        keep_sums(sums);
      });
  finish<T>(args, place, sums, shared, addresses);
}

// The same where all windows of the tile stay in shared memory, behind the panels' stages; k-steps
// are of one tap each, and matrix units multiply.
template <class T, int Rows, int Columns>
__global__ void MP_LAUNCH_BOUNDS(kThreads, blocks_wanted(Rows, Columns))
    resident_contract_kernel(ContractArgs args) {
  using Element = typename TileElement<T>::type;
  using Matrix = MatrixSums<T, Rows, Columns>;
  constexpr int kPanelBytes = Columns * kRowBytes;
  __shared__ Addresses<Rows, Columns> addresses;
  std::byte* shared = dynamic_shared();
  const Place place = find_place(args, Rows);
  find_addresses(args, place, addresses);
  __syncthreads();
  const ResidentWindows<Element, Rows> windows(args, place, addresses.start,
                                               shared + kCopyStages * kPanelBytes);
  windows.bring();  // there with the first stage of the panels
  PanelLoader<Element, Columns> panels(args, place);
  const Element* rows[Matrix::kTileRows];
  for (int i = 0; i < Matrix::kTileRows; ++i)
    rows[i] = windows.row(addresses.start[Matrix::row(i)]);
  Matrix sums;
  sums.zero();
  const auto steps = static_cast<int>(args.padded_depth / Tile<Element, Rows, Columns>::kStep);
  int multiplied = 0, tap = windows.tap(0);
  run_steps<kPanelBytes>(
      steps, shared, [&](int step, std::byte* stage) { panels.begin(stage, step); },
      [&](std::byte* stage) { panels.end(stage); },
      [&](std::byte* stage) {
        ++multiplied;
        const int next = multiplied < steps ? windows.tap(multiplied) : 0;  // on its way meanwhile
        sums.add_rows([&](int i) { return rows[i] + tap; }, stage);
        keep_sums(sums);
        tap = next;
      });
  finish<T>(args, place, sums, shared, addresses);
}

struct Target {
  const DeviceInfo& device;
  const Stream& stream;
};

// How many blocks, and what they divide by.
template <int Rows, int Columns>
Grid cut_into_tiles(ContractArgs& args) {
  args.tile_columns =
      args.loss.labels ? Columns / args.columns * args.columns : std::int64_t{Columns};
  const std::int64_t rows = args.parents * args.samples * args.rows;
  const std::int64_t row_tiles = (rows + Rows - 1) / Rows;
  const std::int64_t column_tiles =
      (args.vendors * args.columns + args.tile_columns - 1) / args.tile_columns;
  // divisors are factors of a number of blocks, which launch() checks, or of what contract_gpu did
  args.by = {Divisor(args.rows), Divisor(args.columns), Divisor(args.out_width),
             Divisor(row_tiles), Divisor(column_tiles), Divisor(args.groups)};
  return {args.product_count * args.groups * row_tiles * column_tiles};
}

Block block_of(const Target& target) {
  return {static_cast<unsigned>(kWarps * target.device.warp_size)};
}

template <class T, int Rows, int Columns, template <class, int> class Loader>
void launch_tiles(ContractArgs args, const Target& target) {
  using Shape = Tile<typename TileElement<T>::type, Rows, Columns>;
  static_assert(Shape::kSharedBytes + sizeof(Addresses<Rows, Columns>) <= kMostSharedBytes);
  const Grid grid = cut_into_tiles<Rows, Columns>(args);
  launch(contract_kernel<T, Rows, Columns, Loader>, grid, block_of(target), Shape::kSharedBytes,
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

// Most rows of the image and most images that a tile's windows begin in.
std::int64_t most_begun(std::int64_t tile_rows, std::int64_t each) {
  return (tile_rows + each - 2) / each + 1;
}

// Eight windows in a row begin `out_width` windows further in the next row of pixels, and an
// image's worth further in the next image, counted in 16 bytes modulo the 8 that shared memory
// gives at once.
template <class Element>
PixelLayout lay_out(const ContractArgs& args) {
  constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(Element));
  const auto pad = [](std::int64_t vectors) { return static_cast<int>((vectors % 8 + 8) % 8); };
  const std::int64_t out_height = args.rows / args.out_width;
  const std::int64_t pixel = args.channels / kVector + 1;
  const std::int64_t row = args.width * pixel + pad((args.out_width - args.width) * pixel);
  PixelLayout lie;
  lie.pixel_stride = static_cast<std::int32_t>(pixel) * kVector;
  lie.row_stride = static_cast<std::int32_t>(row) * kVector;
  lie.image_pad = pad((out_height - args.height) * row) * kVector;
  lie.channels = Divisor(args.channels);
  lie.pixel_vectors = Divisor(args.channels / kVector);
  lie.width = Divisor(args.width);
  lie.height = Divisor(args.height);
  return lie;
}

// Most shared memory that a tile's pixels take, in elements.
std::int64_t most_resident(const ContractArgs& args, std::int64_t tile_rows) {
  const std::int64_t images = most_begun(tile_rows, args.rows);
  const std::int64_t reach = args.span / args.width + 1;  // rows below one that a window begins in
  const std::int64_t rows =
      std::min(images * args.height, most_begun(tile_rows, args.out_width) * args.stride[0] +
                                         reach + (images - 1) * reach);
  return rows * args.pixels.row_stride + (images - 1) * args.pixels.image_pad;
}

// Blocks of a tile, up to two, that a multiprocessor has shared memory for.
template <int Rows, int Columns>
std::int64_t blocks_at_once(const Target& target, std::int64_t bytes) {
  const auto all = bytes + static_cast<std::int64_t>(sizeof(Addresses<Rows, Columns>));
  return std::min<std::int64_t>(std::min(target.device.shared_bytes, kMostSharedBytes) / all, 2);
}

// Launches tiles with all their windows, if that leaves a multiprocessor as many blocks as others
// do.
template <class T, int Rows, int Columns>
bool launch_resident(ContractArgs args, const Target& target) {
  using Element = typename TileElement<T>::type;
  using Shape = Tile<Element, Rows, Columns>;
  constexpr auto kAddressBytes = static_cast<std::int64_t>(sizeof(Addresses<Rows, Columns>));
  if constexpr (Shape::kResultBytes + kAddressBytes > kMostSharedBytes) {
    return false;
  } else {
    args.pixels = lay_out<Element>(args);
    const std::int64_t bytes = std::max<std::int64_t>(
        Shape::kResultBytes, kCopyStages * Columns * kRowBytes +
                                 most_resident(args, Rows) * std::int64_t{sizeof(Element)});
    const std::int64_t blocks = blocks_at_once<Rows, Columns>(target, bytes);
    if (blocks == 0 || blocks < blocks_at_once<Rows, Columns>(target, Shape::kSharedBytes))
      return false;
    const Grid grid = cut_into_tiles<Rows, Columns>(args);
    launch(resident_contract_kernel<T, Rows, Columns>, grid, block_of(target), bytes, target.stream,
           args);
    return true;
  }
}

// Taller tiles use what they load more often, where there are enough of them for everybody.
template <class T, int Columns>
bool launch_tallest(const ContractArgs& args, const Target& target) {
  constexpr std::int64_t kTall = 256;
  const std::int64_t rows = args.product_count * args.parents * args.samples * args.rows;
  const std::int64_t enough = 4 * kTall * target.device.multiprocessor_count;
  if (rows >= enough && launch_resident<T, kTall, Columns>(args, target)) return true;
  return launch_resident<T, 128, Columns>(args, target);
}

// Whether windows may stay in shared memory: they are whole, overlap, and a k-step is of one tap.
template <class T>
bool launch_resident_shape(const ContractArgs& args, const Target& target) {
  using Element = typename TileElement<T>::type;
  constexpr std::int64_t kStep = kStepBytes / static_cast<std::int64_t>(sizeof(Element));
  const bool overlap = args.padded_depth > args.channels && args.stride[0] * args.stride[1] <= 2;
  const bool small =
      args.width * std::int64_t{args.channels} <= kMostSharedBytes;  // a row of pixels
  if (!args.whole || !overlap || !small || args.groups > 1 || args.channels % kStep != 0 ||
      args.loss.labels)
    return false;
  const std::int64_t columns = args.vendors * args.columns;
  if (columns <= 32) return launch_tallest<T, 32>(args, target);
  if (columns <= 64) return launch_tallest<T, 64>(args, target);
  if constexpr (sizeof(Element) == 2)  // float32 would run out of registers
    if (launch_resident<T, 128, 128>(args, target)) return true;
  return launch_resident<T, 128, 64>(args, target);
}

template <class T>
void launch_contract(const ContractArgs& args, const Target& target) {
  constexpr auto kVector =
      kVectorBytes / static_cast<std::int64_t>(sizeof(typename TileElement<T>::type));
  if constexpr (!std::is_same_v<T, float>)  // which not every chip has matrix units for
    if (launch_resident_shape<T>(args, target)) return;
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
