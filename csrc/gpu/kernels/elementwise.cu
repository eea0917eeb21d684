#include "gpu/kernels/activation.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/rows.h"

namespace marketplace::gpu {
namespace {

// N elements of a row of an operand.
template <class T, int N>
__device__ void read(const Operand& operand, const Part& part, std::int64_t each, float (&to)[N]) {
  const std::int64_t row = operand.map == nullptr ? part.row : operand.map[part.row];
  load_floats(static_cast<const T*>(operand.data) + row * each + part.first, to);
}

template <class T, int N>
__global__ void unary_kernel(Activation activation, const T* in, T* out, std::int64_t count,
                             Divisor blocks) {
  const Part part = part_of<N>(blocks);
  if (part.first >= count) return;
  float values[N];
  load_floats(in + part.first, values);
  with_activation(activation, [&](auto activated) {
    for (float& value : values) value = activated(value);
  });
  store_floats(values, out + part.first);
}

template <class T, int N>
__global__ void affine_kernel(float scale, float shift, const T* in, T* out, std::int64_t count,
                              Divisor blocks) {
  const Part part = part_of<N>(blocks);
  if (part.first >= count) return;
  float values[N];
  load_floats(in + part.first, values);
  for (float& value : values) value = scale * value + shift;
  store_floats(values, out + part.first);
}

template <class T, int N>
__global__ void binary_kernel(bool product, bool relu, Operand a, Operand b, T* out,
                              std::int64_t each, Divisor blocks) {
  const Part part = part_of<N>(blocks);
  if (part.first >= each) return;
  float x[N], y[N];
  read<T>(a, part, each, x);
  read<T>(b, part, each, y);
  for (int i = 0; i < N; ++i) {
    const float z = product ? x[i] * y[i] : x[i] + y[i];
    x[i] = relu && z < 0 ? 0.0f : z;
  }
  store_floats(x, out + part.row * each + part.first);
}

template <class T, class Out, int N>
__global__ void copy_kernel(Operand in, Out* out, std::int64_t each, Divisor blocks) {
  const Part part = part_of<N>(blocks);
  if (part.first >= each) return;
  float values[N];
  read<T>(in, part, each, values);
  store_floats(values, out + part.row * each + part.first);
}

template <class T>
__global__ void transpose_kernel(const T* in, T* out, std::int64_t count, std::int64_t a,
                                 std::int64_t b) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const std::int64_t sample = i / (a * b), place = i % (a * b);
  out[i] = in[sample * a * b + place % a * b + place / a];
}

template <class T>
__global__ void mean_kernel(const T* in, T* out, std::int64_t count, std::int64_t axis,
                            std::int64_t inner) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const T* x = in + i / inner * axis * inner + i % inner;
  double sum = 0;
  for (std::int64_t k = 0; k < axis; ++k) sum += to_float(x[k * inner]);
  out[i] = rounded<T>(static_cast<float>(sum / static_cast<double>(axis)));
}

struct LoadArgs {
  std::int64_t batch, first, each;  // numbers: of an input, before the tile, of the tile
};

// One row for each input.
template <class T, class In>
__global__ void load_samples_kernel(const In* in, T* out, LoadArgs args, Divisor blocks) {
  const Part part = part_of<1>(blocks);
  if (part.first >= args.each) return;
  const In value = in[part.row * args.batch + args.first + part.first];
  out[part.row * args.each + part.first] = rounded<T>(static_cast<float>(value));
}

}  // namespace

void unary_gpu(DType dtype, Activation activation, const void* in, void* out, std::int64_t count,
               const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    with_vectors<T>(count, {in, out}, [&](auto n) {
      const RowBlocks blocks(1, count, n);
      launch(unary_kernel<T, n>, blocks.grid, Block{kBlockThreads}, 0, stream, activation,
             static_cast<const T*>(in), static_cast<T*>(out), count, blocks.divisor);
    });
  });
}

void affine_gpu(DType dtype, float scale, float shift, const void* in, void* out,
                std::int64_t count, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    with_vectors<T>(count, {in, out}, [&](auto n) {
      const RowBlocks blocks(1, count, n);
      launch(affine_kernel<T, n>, blocks.grid, Block{kBlockThreads}, 0, stream, scale, shift,
             static_cast<const T*>(in), static_cast<T*>(out), count, blocks.divisor);
    });
  });
}

void binary_gpu(DType dtype, bool product, bool relu, Operand a, Operand b, void* out,
                std::int64_t rows, std::int64_t each, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    with_vectors<T>(each, {a.data, b.data, out}, [&](auto n) {
      const RowBlocks blocks(rows, each, n);
      launch(binary_kernel<T, n>, blocks.grid, Block{kBlockThreads}, 0, stream, product, relu, a, b,
             static_cast<T*>(out), each, blocks.divisor);
    });
  });
}

void copy_gpu(DType dtype, bool float_out, Operand in, void* out, std::int64_t rows,
              std::int64_t each, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    with_vectors<T>(each, {in.data, out}, [&](auto n) {
      const RowBlocks blocks(rows, each, n);
      if (float_out)
        launch(copy_kernel<T, float, n>, blocks.grid, Block{kBlockThreads}, 0, stream, in,
               static_cast<float*>(out), each, blocks.divisor);
      else
        launch(copy_kernel<T, T, n>, blocks.grid, Block{kBlockThreads}, 0, stream, in,
               static_cast<T*>(out), each, blocks.divisor);
    });
  });
}

void transpose_gpu(DType dtype, const void* in, void* out, std::int64_t count, std::int64_t a,
                   std::int64_t b, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    launch(transpose_kernel<T>, blocks_for(count * a * b), Block{kBlockThreads}, 0, stream,
           static_cast<const T*>(in), static_cast<T*>(out), count * a * b, a, b);
  });
}

void mean_gpu(DType dtype, const void* in, void* out, std::int64_t outer, std::int64_t axis,
              std::int64_t inner, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    launch(mean_kernel<T>, blocks_for(outer * inner), Block{kBlockThreads}, 0, stream,
           static_cast<const T*>(in), static_cast<T*>(out), outer * inner, axis, inner);
  });
}

void load_samples_gpu(DType dtype, DType from, const void* in, void* out, std::int64_t inputs,
                      std::int64_t batch, std::int64_t first, std::int64_t count, std::int64_t size,
                      const Stream& stream) {
  const LoadArgs args{batch * size, first * size, count * size};
  const RowBlocks blocks(inputs, args.each, 1);
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    if (from == DType::uint8)
      launch(load_samples_kernel<T, std::uint8_t>, blocks.grid, Block{kBlockThreads}, 0, stream,
             static_cast<const std::uint8_t*>(in), static_cast<T*>(out), args, blocks.divisor);
    else
      launch(load_samples_kernel<T, float>, blocks.grid, Block{kBlockThreads}, 0, stream,
             static_cast<const float*>(in), static_cast<T*>(out), args, blocks.divisor);
  });
}

}  // namespace marketplace::gpu
