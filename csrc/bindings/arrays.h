// NumPy arrays at the door: checked once, borrowed, never converted silently.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "backend.h"
#include "bindings/device_tensor.h"
#include "core/error.h"

namespace marketplace::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
std::vector<T> to_vector(const Array<T>& array) {
  return std::vector<T>(array.data(), array.data() + array.size());
}

template <class T>
Array<T> to_array(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  Array<T> array(std::move(shape));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

template <class T>
Array<T> to_array(const std::vector<T>& values) {
  return to_array(values, {static_cast<py::ssize_t>(values.size())});
}

inline Array<float> to_array(const Vector& values) {
  Array<float> array(values.size());
  std::copy_n(values.data(), values.size(), array.mutable_data());
  return array;
}

// x (B, *sample), or (U, B, *sample) when `stacked`, of an array's dtype and shape.
inline Batch make_batch(const std::string& dtype, const Shape& shape, bool stacked,
                        std::int64_t inputs) {
  if (dtype != "uint8" && dtype != "float32")
    fail(ErrorKind::type, "batch", "x of dtype uint8 or float32", dtype);
  const std::size_t first = stacked ? 2 : 1;
  if (shape.size() < first)
    fail("batch", "x (B, ...)", std::to_string(shape.size()) + " dimensions");
  if (stacked && shape[0] < inputs)
    fail("batch", std::to_string(inputs) + " upstream results", std::to_string(shape[0]));
  Batch batch;
  batch.dtype = dtype == "uint8" ? DType::uint8 : DType::float32;
  batch.size = shape[first - 1];
  batch.sample_shape.assign(shape.begin() + static_cast<std::ptrdiff_t>(first), shape.end());
  return batch;
}

// Common dtypes by comparison: to spell one takes NumPy longer than a small probe.
inline std::string dtype_name(const py::array& array) {
  if (py::array_t<std::uint8_t>::check_(array)) return "uint8";
  if (py::array_t<float>::check_(array)) return "float32";
  return py::str(array.dtype()).cast<std::string>();
}

// A NumPy array or a DeviceTensor, C-contiguous.
inline Batch borrow_batch(const py::object& x, bool stacked, std::int64_t inputs) {
  if (py::isinstance<DeviceTensor>(x)) {
    const auto& there = x.cast<const DeviceTensor&>();
    Batch batch = make_batch(there.dtype_name(), there.shape, stacked, inputs);
    batch.data = there.data;
    batch.device = there.device;
    return batch;
  }
  const auto array = x.cast<py::array>();
  if (!(array.flags() & py::array::c_style)) fail("batch", "a C-contiguous array", "a strided one");
  Batch batch = make_batch(dtype_name(array), Shape(array.shape(), array.shape() + array.ndim()),
                           stacked, inputs);
  batch.data = array.data();
  return batch;
}

inline void check_labels_shape(const Shape& shape, std::int64_t batch) {
  if (shape != Shape{batch})
    fail("cross_entropy", "labels (" + std::to_string(batch) + ",)", to_string(shape));
}

inline Labels borrow_labels(const Array<std::int32_t>& labels, std::int64_t batch,
                            std::optional<std::int32_t> ignore_index) {
  check_labels_shape(Shape(labels.shape(), labels.shape() + labels.ndim()), batch);
  return {labels.data(), ignore_index, {}};
}

inline Labels borrow_labels(const DeviceTensor& labels, std::int64_t batch,
                            std::optional<std::int32_t> ignore_index) {
  check_labels_shape(labels.shape, batch);
  const bool is_signed = labels.dtype.code == dlpack::kInt;
  if (labels.dtype.lanes != 1 || (!is_signed && labels.dtype.code != dlpack::kUint))
    fail(ErrorKind::type, "cross_entropy", "labels of an integer dtype", labels.dtype_name());
  return {nullptr,
          ignore_index,
          {labels.data, labels.device, static_cast<int>(labels.item_bytes()), is_signed}};
}

using AnyLabels = std::variant<DeviceTensor, Array<std::int32_t>>;

inline Labels borrow_labels(const AnyLabels& labels, std::int64_t batch,
                            std::optional<std::int32_t> ignore_index) {
  return std::visit([&](const auto& given) { return borrow_labels(given, batch, ignore_index); },
                    labels);
}

// An uninitialised (leading..., B, *shape) float32 array.
inline Array<float> output_array(std::vector<py::ssize_t> leading, const Shape& shape) {
  leading.insert(leading.end(), shape.begin(), shape.end());
  return Array<float>(leading);
}

// Where a call's results are wanted: on the host, or on the leading device, waited for or not.
struct Place {
  bool on_device = false, waits = true;
};

// Room for results (leading..., B, *shape): the Python object, and where the engine writes.
inline std::pair<py::object, Output> make_output(Backend& backend, const Place& place,
                                                 std::vector<py::ssize_t> leading,
                                                 const Shape& shape) {
  if (!place.on_device) {
    Array<float> out = output_array(std::move(leading), shape);
    float* data = out.mutable_data();
    return {std::move(out), Output(data)};
  }
  if (!backend.exchange()) fail("out", "a GPU for results on the device", backend.device());
  Shape whole(leading.begin(), leading.end());
  whole.insert(whole.end(), shape.begin(), shape.end());
  DeviceTensor out = make_device_tensor(backend.exchange(), std::move(whole));
  const Output output(reinterpret_cast<float*>(out.data), out.device, place.waits);
  return {py::cast(std::move(out)), output};
}

}  // namespace marketplace::bindings
