// Elementwise ops, conversions and layouts.
//
// A value is (rows, samples, size); `each` = samples * size elements per row. Values that vendors
// share have one row per upstream result, and a map (rows,) says which of them a row reads.
#pragma once

#include <cstdint>

#include "gpu/program.h"
#include "gpu/runtime.h"

namespace marketplace::gpu {

struct Operand {
  const void* data = nullptr;
  const std::int32_t* map = nullptr;  // nullptr: row r reads row r
};

// out (rows, each) = activation(in).
void unary_gpu(DType dtype, Activation activation, const void* in, void* out, std::int64_t count,
               const Stream& stream);
// out = scale * in + shift.
void affine_gpu(DType dtype, float scale, float shift, const void* in, void* out,
                std::int64_t count, const Stream& stream);
// out = a + b or a * b, a relu behind it where asked.
void binary_gpu(DType dtype, bool product, bool relu, Operand a, Operand b, void* out,
                std::int64_t rows, std::int64_t each, const Stream& stream);
// out = in, as float32 where asked.
void copy_gpu(DType dtype, bool float_out, Operand in, void* out, std::int64_t rows,
              std::int64_t each, const Stream& stream);
// (count, a, b) -> (count, b, a).
void transpose_gpu(DType dtype, const void* in, void* out, std::int64_t count, std::int64_t a,
                   std::int64_t b, const Stream& stream);
// (outer, axis, inner) -> (outer, inner), sums in float64.
void mean_gpu(DType dtype, const void* in, void* out, std::int64_t outer, std::int64_t axis,
              std::int64_t inner, const Stream& stream);
// Samples [first, first + count) of in (inputs, batch, size), uint8 or float32, in the compute
// type.
void load_samples_gpu(DType dtype, DType from, const void* in, void* out, std::int64_t inputs,
                      std::int64_t batch, std::int64_t first, std::int64_t count, std::int64_t size,
                      const Stream& stream);

}  // namespace marketplace::gpu
