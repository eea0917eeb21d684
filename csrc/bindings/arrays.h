// NumPy arrays at the door: checked once, borrowed, never converted silently.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "backend.h"
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

// x (B, *sample), or (U, B, *sample) when `stacked`; uint8 or float32, C-contiguous.
inline Batch borrow_batch(const py::array& x, bool stacked, std::int64_t inputs) {
  Batch batch;
  if (py::isinstance<py::array_t<std::uint8_t>>(x))
    batch.dtype = DType::uint8;
  else if (!py::isinstance<py::array_t<float>>(x))
    fail(ErrorKind::type, "batch", "x of dtype uint8 or float32",
         py::str(x.dtype()).cast<std::string>());
  if (!(x.flags() & py::array::c_style)) fail("batch", "a C-contiguous array", "a strided one");
  const py::ssize_t first = stacked ? 2 : 1;
  if (x.ndim() < first) fail("batch", "x (B, ...)", std::to_string(x.ndim()) + " dimensions");
  if (stacked && x.shape(0) < inputs)
    fail("batch", std::to_string(inputs) + " upstream results", std::to_string(x.shape(0)));
  batch.data = x.data();
  batch.size = x.shape(first - 1);
  for (py::ssize_t i = first; i < x.ndim(); ++i) batch.sample_shape.push_back(x.shape(i));
  return batch;
}

inline Labels borrow_labels(const Array<std::int32_t>& labels, std::int64_t batch,
                            std::optional<std::int32_t> ignore_index) {
  if (labels.ndim() != 1 || labels.shape(0) != batch)
    fail("cross_entropy", "labels (" + std::to_string(batch) + ",)",
         py::str(labels.attr("shape")).cast<std::string>());
  return {labels.data(), ignore_index};
}

// An uninitialised (leading..., B, *shape) float32 array.
inline Array<float> output_array(std::vector<py::ssize_t> leading, const Shape& shape) {
  leading.insert(leading.end(), shape.begin(), shape.end());
  return Array<float>(leading);
}

}  // namespace marketplace::bindings
