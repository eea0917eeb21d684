#include "capi/tensor.h"

#include <string>
#include <utility>

#include "capi/status.h"

namespace marketplace::capi {
namespace {

constexpr std::int32_t kMostAxes = 16;

std::string dtype_name(const mp_tensor& tensor) {
  const char* kinds[] = {"int", "uint", "float"};
  const std::string bits = std::to_string(tensor.dtype_bits);
  return tensor.dtype_code < 3 ? kinds[tensor.dtype_code] + bits
                               : "DLPack type code " + std::to_string(tensor.dtype_code);
}

bool has_dtype(const mp_tensor& tensor, int code, int bits) {
  return tensor.dtype_code == code && tensor.dtype_bits == bits;
}

void check_memory(const mp_tensor& tensor, const char* op) {
  const std::int32_t device = tensor.device_type;
  if (device != 1 && device != 3 && device != 11)  // the host's, also pinned for CUDA or ROCm
    fail(ErrorKind::type, op, "a tensor in host memory",
         "one on DLPack device type " + std::to_string(device));
  if (tensor.dtype_lanes != 1)
    fail(ErrorKind::type, op, "a dtype of one lane", std::to_string(tensor.dtype_lanes));
  if (tensor.data == nullptr) fail(op, "a tensor with data", "NULL");
}

void check_contiguous(const mp_tensor& tensor, const char* op) {
  if (tensor.strides == nullptr) return;
  std::int64_t expected = 1;
  for (std::int32_t i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected)
      fail(op, "a C-contiguous tensor",
           "stride " + std::to_string(tensor.strides[i]) + " at axis " + std::to_string(i));
    expected *= tensor.shape[i];
  }
}

const void* address(const mp_tensor& tensor, const char* op) {
  const auto* data = static_cast<const unsigned char*>(tensor.data) + tensor.byte_offset;
  const auto item = static_cast<std::uintptr_t>(tensor.dtype_bits / 8);
  if (item > 1 && reinterpret_cast<std::uintptr_t>(data) % item != 0)
    fail(op, "data aligned to " + std::to_string(item) + " bytes", "an address between");
  return data;
}

// Checks everything but dtype and shape.
const mp_tensor& checked(const mp_tensor* given, const char* op) {
  const mp_tensor& tensor = required(given, op, "a tensor");
  in_range(tensor.ndim, 0, kMostAxes, op, "dimensions");
  if (tensor.ndim > 0) required(tensor.shape, op, "a shape");
  check_memory(tensor, op);
  checked_count(tensor.shape, tensor.ndim, op);
  check_contiguous(tensor, op);
  return tensor;
}

Shape shape_of(const mp_tensor& tensor) {
  return Shape(tensor.shape, tensor.shape + tensor.ndim);
}

template <class T>
std::vector<std::int32_t> narrow(const void* data, std::int64_t count, const char* op) {
  const T* values = static_cast<const T*>(data);
  std::vector<std::int32_t> labels(count);
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::in_range<std::int32_t>(values[i]))
      fail(op, "labels within int32",
           std::to_string(values[i]) + " at sample " + std::to_string(i));
    labels[i] = static_cast<std::int32_t>(values[i]);
  }
  return labels;
}

}  // namespace

Batch borrow_batch(const mp_tensor* x, const char* op) {
  const mp_tensor& tensor = checked(x, op);
  const bool bytes = has_dtype(tensor, MP_DTYPE_UINT, 8);
  if (!bytes && !has_dtype(tensor, MP_DTYPE_FLOAT, 32))
    fail(ErrorKind::type, op, "x of dtype uint8 or float32", dtype_name(tensor));
  if (tensor.ndim < 1) fail(op, "x (B, ...)", "0 dimensions");
  const Shape shape = shape_of(tensor);
  return {address(tensor, op), bytes ? DType::uint8 : DType::float32, shape[0],
          Shape(shape.begin() + 1, shape.end())};
}

std::vector<std::int32_t> read_labels(const mp_tensor* labels, std::int64_t batch, const char* op) {
  const mp_tensor& tensor = checked(labels, op);
  if (tensor.ndim != 1 || tensor.shape[0] != batch)
    fail(op, "labels " + to_string(Shape{batch}), to_string(shape_of(tensor)));
  if (tensor.dtype_code == MP_DTYPE_INT) {
    switch (tensor.dtype_bits) {
      case 8: return narrow<std::int8_t>(address(tensor, op), batch, op);
      case 16: return narrow<std::int16_t>(address(tensor, op), batch, op);
      case 32: return narrow<std::int32_t>(address(tensor, op), batch, op);
      case 64: return narrow<std::int64_t>(address(tensor, op), batch, op);
    }
  } else if (tensor.dtype_code == MP_DTYPE_UINT) {
    switch (tensor.dtype_bits) {
      case 8: return narrow<std::uint8_t>(address(tensor, op), batch, op);
      case 16: return narrow<std::uint16_t>(address(tensor, op), batch, op);
      case 32: return narrow<std::uint32_t>(address(tensor, op), batch, op);
      case 64: return narrow<std::uint64_t>(address(tensor, op), batch, op);
    }
  }
  fail(ErrorKind::type, op, "labels of an integer dtype", dtype_name(tensor));
}

const float* borrow_values(const mp_tensor* values, const Shape& shape, const char* op) {
  const mp_tensor& tensor = checked(values, op);
  if (!has_dtype(tensor, MP_DTYPE_FLOAT, 32))
    fail(ErrorKind::type, op, "values of dtype float32", dtype_name(tensor));
  if (shape_of(tensor) != shape) fail(op, to_string(shape), to_string(shape_of(tensor)));
  return static_cast<const float*>(address(tensor, op));
}

}  // namespace marketplace::capi
