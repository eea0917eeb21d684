#include "gpu/kernels/activation.h"
#include "gpu/kernels/element.h"
#include "gpu/kernels/elementwise.h"

namespace marketplace::gpu {
namespace {

template <class T>
__device__ T read(const Operand& operand, std::int64_t index, std::int64_t each) {
  const T* data = static_cast<const T*>(operand.data);
  if (operand.map == nullptr) return data[index];
  return data[operand.map[index / each] * each + index % each];
}

template <class T>
__global__ void unary_kernel(Activation activation, const T* in, T* out, std::int64_t count) {
  const std::int64_t i = thread_index();
  if (i < count) out[i] = rounded<T>(activate(activation, to_float(in[i])));
}

template <class T>
__global__ void affine_kernel(float scale, float shift, const T* in, T* out, std::int64_t count) {
  const std::int64_t i = thread_index();
  if (i < count) out[i] = rounded<T>(scale * to_float(in[i]) + shift);
}

template <class T>
__global__ void binary_kernel(bool product, bool relu, Operand a, Operand b, T* out,
                              std::int64_t count, std::int64_t each) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const float x = to_float(read<T>(a, i, each)), y = to_float(read<T>(b, i, each));
  const float z = product ? x * y : x + y;
  out[i] = rounded<T>(relu && z < 0 ? 0.0f : z);
}

template <class T, class Out>
__global__ void copy_kernel(Operand in, Out* out, std::int64_t count, std::int64_t each) {
  const std::int64_t i = thread_index();
  if (i < count) out[i] = rounded<Out>(to_float(read<T>(in, i, each)));
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
  std::int64_t batch, first, count, size, total;
};

template <class T, class In>
__global__ void load_samples_kernel(const In* in, T* out, LoadArgs args) {
  const std::int64_t i = thread_index();
  if (i >= args.total) return;
  const std::int64_t each = args.count * args.size;
  const std::int64_t input = i / each, place = i % each;
  out[i] =
      rounded<T>(static_cast<float>(in[(input * args.batch + args.first) * args.size + place]));
}

}  // namespace

void unary_gpu(DType dtype, Activation activation, const void* in, void* out, std::int64_t count,
               const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    launch(unary_kernel<T>, blocks_for(count), Block{kBlockThreads}, 0, stream, activation,
           static_cast<const T*>(in), static_cast<T*>(out), count);
  });
}

void affine_gpu(DType dtype, float scale, float shift, const void* in, void* out,
                std::int64_t count, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    launch(affine_kernel<T>, blocks_for(count), Block{kBlockThreads}, 0, stream, scale, shift,
           static_cast<const T*>(in), static_cast<T*>(out), count);
  });
}

void binary_gpu(DType dtype, bool product, bool relu, Operand a, Operand b, void* out,
                std::int64_t rows, std::int64_t each, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    launch(binary_kernel<T>, blocks_for(rows * each), Block{kBlockThreads}, 0, stream, product,
           relu, a, b, static_cast<T*>(out), rows * each, each);
  });
}

void copy_gpu(DType dtype, bool float_out, Operand in, void* out, std::int64_t rows,
              std::int64_t each, const Stream& stream) {
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    if (float_out)
      launch(copy_kernel<T, float>, blocks_for(rows * each), Block{kBlockThreads}, 0, stream, in,
             static_cast<float*>(out), rows * each, each);
    else
      launch(copy_kernel<T, T>, blocks_for(rows * each), Block{kBlockThreads}, 0, stream, in,
             static_cast<T*>(out), rows * each, each);
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
  const LoadArgs args{batch, first, count, size, inputs * count * size};
  dispatch(dtype, [&](auto element) {
    using T = decltype(element);
    if (from == DType::uint8)
      launch(load_samples_kernel<T, std::uint8_t>, blocks_for(args.total), Block{kBlockThreads}, 0,
             stream, static_cast<const std::uint8_t*>(in), static_cast<T*>(out), args);
    else
      launch(load_samples_kernel<T, float>, blocks_for(args.total), Block{kBlockThreads}, 0, stream,
             static_cast<const float*>(in), static_cast<T*>(out), args);
  });
}

}  // namespace marketplace::gpu
