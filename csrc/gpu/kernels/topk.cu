#include <bit>
#include <string>

#include "core/error.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/topk.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kTile = 1024;  // candidates in shared memory at once

// Bits that order as the numbers do; the order turned round for the largest.
__device__ std::uint64_t sort_key(double value, bool largest) {
  if (value != value) return UINT64_MAX;
  if (value == 0) value = 0;  // no two zeros
  std::uint64_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const std::uint64_t sign = std::uint64_t{1} << 63;
  bits = (bits & sign) != 0 ? ~bits : bits | sign;
  return largest ? ~bits : bits;
}

template <class T>
__global__ void load_candidates_kernel(TopkArgs args, std::int64_t count) {
  const std::int64_t index = thread_index();
  if (index >= args.rows * count) return;
  const std::int64_t row = index / count, i = index % count;
  Candidate candidate = {UINT64_MAX, INT64_MAX};  // behind every number
  if (i < args.n) {
    const T value = static_cast<const T*>(args.values.data)[row * args.n + i];
    candidate = {sort_key(static_cast<double>(value), args.largest), i};
  }
  args.candidates[index] = candidate;
}

// Puts the better of two first, or last where a network runs the other way.
__device__ void compare(Candidate& a, Candidate& b, bool ascending) {
  const bool ordered = a.key < b.key || (a.key == b.key && a.index < b.index);
  if (ordered == ascending) return;
  const Candidate other = a;
  a = b;
  b = other;
}

// Sorts tiles of a row into runs of `first_size` to `last_size` candidates, alternately up and
// down, as far as strides lie within a tile.
__global__ void sort_tiles_kernel(Candidate* candidates, std::int64_t count,
                                  std::int64_t first_size, std::int64_t last_size) {
  __shared__ Candidate tile[kTile];
  const std::int64_t start = static_cast<std::int64_t>(blockIdx.x) * kTile;
  for (std::int64_t i = threadIdx.x; i < kTile; i += kBlockThreads) tile[i] = candidates[start + i];
  __syncthreads();
  for (std::int64_t size = first_size; size <= last_size; size *= 2)
    for (std::int64_t stride = (size < kTile ? size : kTile) / 2; stride > 0; stride /= 2) {
      for (std::int64_t pair = threadIdx.x; pair < kTile / 2; pair += kBlockThreads) {
        const std::int64_t i = 2 * stride * (pair / stride) + pair % stride;
        compare(tile[i], tile[i + stride], ((start + i) % count & size) == 0);
      }
      __syncthreads();
    }
  for (std::int64_t i = threadIdx.x; i < kTile; i += kBlockThreads) candidates[start + i] = tile[i];
}

// One step of a network at a stride of whole tiles.
__global__ void merge_kernel(Candidate* candidates, std::int64_t pairs, std::int64_t count,
                             std::int64_t size, std::int64_t stride) {
  const std::int64_t pair = thread_index();
  if (pair >= pairs) return;
  const std::int64_t i = 2 * stride * (pair / stride) + pair % stride;
  compare(candidates[i], candidates[i + stride], (i % count & size) == 0);
}

__global__ void pick_kernel(TopkArgs args, std::int64_t count) {
  const std::int64_t index = thread_index();
  if (index >= args.rows * args.k) return;
  const std::int64_t row = index / args.k,
                     chosen = args.candidates[row * count + index % args.k].index;
  args.indices[index] = chosen;
  const auto* values = static_cast<const std::byte*>(args.values.data);
  for (int byte = 0; byte < args.values.bytes; ++byte)
    args.best[index * args.values.bytes + byte] =
        values[(row * args.n + chosen) * args.values.bytes + byte];
}

template <class T>
void load(const TopkArgs& args, std::int64_t count, const Stream& stream) {
  launch(load_candidates_kernel<T>, blocks_for(args.rows * count), Block{kBlockThreads}, 0, stream,
         args, count);
}

template <class Signed, class Unsigned>
void load_integers(const TopkArgs& args, std::int64_t count, const Stream& stream) {
  return args.values.kind == NumberKind::signed_ ? load<Signed>(args, count, stream)
                                                 : load<Unsigned>(args, count, stream);
}

void load_candidates(const TopkArgs& args, std::int64_t count, const Stream& stream) {
  const bool real = args.values.kind == NumberKind::real;
  if (real && args.values.bytes == 4) return load<float>(args, count, stream);
  if (real && args.values.bytes == 8) return load<double>(args, count, stream);
  switch (real ? 0 : args.values.bytes) {
    case 1: return load_integers<std::int8_t, std::uint8_t>(args, count, stream);
    case 2: return load_integers<std::int16_t, std::uint16_t>(args, count, stream);
    case 4: return load_integers<std::int32_t, std::uint32_t>(args, count, stream);
    case 8: return load_integers<std::int64_t, std::uint64_t>(args, count, stream);
    default:
      fail(ErrorKind::type, "topk", "float32, float64 or integers on a device",
           (real ? "float" : "int") + std::to_string(8 * args.values.bytes));
  }
}

void sort_candidates(Candidate* candidates, std::int64_t rows, std::int64_t count,
                     const Stream& stream) {
  const Grid tiles{rows * count / kTile};
  const std::int64_t pairs = rows * count / 2;
  const Block block{kBlockThreads};
  launch(sort_tiles_kernel, tiles, block, 0, stream, candidates, count, 2, kTile);
  for (std::int64_t size = 2 * kTile; size <= count; size *= 2) {
    for (std::int64_t stride = size / 2; stride >= kTile; stride /= 2)
      launch(merge_kernel, blocks_for(pairs), block, 0, stream, candidates, pairs, count, size,
             stride);
    launch(sort_tiles_kernel, tiles, block, 0, stream, candidates, count, size, size);
  }
}

}  // namespace

std::int64_t candidate_count(std::int64_t n) {
  const auto count = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
  return count < kTile ? kTile : count;
}

void topk_gpu(const TopkArgs& args, const Stream& stream) {
  const std::int64_t count = candidate_count(args.n);
  load_candidates(args, count, stream);
  sort_candidates(args.candidates, args.rows, count, stream);
  launch(pick_kernel, blocks_for(args.rows * args.k), Block{kBlockThreads}, 0, stream, args, count);
}

}  // namespace marketplace::gpu
