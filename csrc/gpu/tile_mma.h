// Matrix units behind one wrapper: C (16, 16) += A (16, 16) · B (16, 16), by the lanes of one warp.
//
//   TileA<T> a; a.load(row);            row: the 16 consecutive k-elements of row lane % 16
//   TileB<T> b; b.load(first, stride);  column j's k-elements at first + j * stride
//   TileC<T> c; c.zero(); mma(c, a, b);
//   c.for_each([&](int row, int column, float& value) { ... });   this lane's elements
//
// T        operands             sums     units
// BFloat16 bfloat16             float32  tensor cores, MFMA, WMMA; FMA where there are none
// Tf32     float32, rounded     float32  tensor cores; elsewhere as float
// float    float32              float32  FMA; MFMA where it is exact
//
// Operands lie in shared memory (or anywhere a pointer reaches), rows and columns 16-byte aligned.
// A tile may be read from memory as late as in mma(): the memory must stay as it is until then.
// All lanes of the warp take part in every call.
#pragma once

#include "gpu/bfloat16.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

struct Tf32 {};

template <class T>
struct TileElement {
  using type = T;
};
template <>
struct TileElement<Tf32> {
  using type = float;
};

template <class T>
struct TileA;
template <class T>
struct TileB;
template <class T>
struct TileC;

}  // namespace marketplace::gpu

#if defined(MARKETPLACE_SIMT)
#include "simt_mma.h"
#elif defined(__HIP__) || defined(__HIPCC__)
#include "gpu/vendors/mma_hip.h"
#else
#include "gpu/vendors/mma_cuda.h"
#endif
