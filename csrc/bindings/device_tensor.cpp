// Exchange and DeviceTensor for Python: DLPack capsules in and out, memory borrowed by its address.
#include "bindings/device_tensor.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "core/error.h"

namespace marketplace::bindings {
namespace {

namespace py = pybind11;

std::string type_name(const dlpack::DataType& dtype) {
  const std::string bits = std::to_string(dtype.bits);
  const std::string lanes = dtype.lanes == 1 ? "" : " in " + std::to_string(dtype.lanes) + " lanes";
  switch (dtype.code) {
    case dlpack::kInt: return "int" + bits + lanes;
    case dlpack::kUint: return "uint" + bits + lanes;
    case dlpack::kFloat: return "float" + bits + lanes;
    case dlpack::kBfloat: return "bfloat" + bits + lanes;
    case dlpack::kComplex: return "complex" + bits + lanes;
    case dlpack::kBool: return "bool" + lanes;
    default: return "DLPack type " + std::to_string(dtype.code);
  }
}

std::int32_t device_type(const Exchange& exchange) {
  return exchange.kind() == "hip" ? dlpack::kRocm : dlpack::kCuda;
}

bool is_row_major(const dlpack::Tensor& tensor) {
  if (tensor.strides == nullptr) return true;
  std::int64_t expected = 1;
  bool fits = true;
  for (std::int32_t i = tensor.axes; i-- > 0; expected *= tensor.shape[i]) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] > 1 && tensor.strides[i] != expected) fits = false;
  }
  return fits;
}

// What an error says of an array: the operation that it is handed to, and its name there.
struct Argument {
  std::string op, name;
};

DeviceTensor view_of(std::shared_ptr<Exchange> exchange, std::shared_ptr<void> memory,
                     const dlpack::Tensor& tensor, const Argument& argument) {
  const std::int32_t type = tensor.device.type, own = device_type(*exchange);
  if (type != own && !(own == dlpack::kCuda && type == dlpack::kCudaManaged))
    fail(ErrorKind::type, argument.op, argument.name + " on a " + exchange->kind() + " device",
         "an array on DLPack device type " + std::to_string(type));
  if (!is_row_major(tensor))
    fail(argument.op, argument.name + " as a C-contiguous array", "a strided one");
  DeviceTensor view{std::move(exchange), std::move(memory), nullptr,
                    tensor.device.index, tensor.dtype,      {}};
  view.shape.assign(tensor.shape, tensor.shape + tensor.axes);
  if (tensor.data != nullptr) view.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  return view;
}

// What a capsule carries becomes ours: its deleter runs when nobody needs it any more.
template <class Managed>
std::shared_ptr<Managed> take(PyObject* capsule) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::kName));
  if (managed == nullptr || PyCapsule_SetName(capsule, Managed::kUsedName) != 0)
    throw py::error_already_set();
  return {managed, [](Managed* own) {
            if (own->deleter != nullptr) own->deleter(own);
          }};
}

DeviceTensor from_capsule(std::shared_ptr<Exchange> exchange, const py::object& capsule,
                          const std::string& op, const std::string& name) {
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::ManagedTensorVersioned::kName)) {
    const auto managed = take<dlpack::ManagedTensorVersioned>(capsule.ptr());
    if (managed->version.major != dlpack::kVersion.major)
      fail(op, name + " by version 1 of DLPack",
           "version " + std::to_string(managed->version.major));
    return view_of(std::move(exchange), managed, managed->tensor, {op, name});
  }
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::ManagedTensor::kName)) {
    const auto managed = take<dlpack::ManagedTensor>(capsule.ptr());
    return view_of(std::move(exchange), managed, managed->tensor, {op, name});
  }
  fail(ErrorKind::type, op, name + " as a capsule of DLPack that nobody has taken",
       py::repr(capsule).cast<std::string>());
}

std::shared_ptr<void> keep(const py::object& owner) {
  return {new py::object(owner), [](void* own) {
            const py::gil_scoped_acquire gil;
            delete static_cast<py::object*>(own);
          }};
}

// Memory that `owner` keeps, at an address; its device is asked of the runtime.
DeviceTensor borrow(std::shared_ptr<Exchange> exchange, const py::object& owner,
                    std::uintptr_t address, const Shape& shape, std::uint8_t code,
                    std::uint8_t bits, const std::string& op, const std::string& name) {
  DeviceTensor view{std::move(exchange), keep(owner), nullptr, kHost, {code, bits, 1}, shape};
  view.data = reinterpret_cast<std::byte*>(address);
  view.device = view.bytes() == 0 ? view.exchange->leader() : view.exchange->device_of(view.data);
  if (view.device == kHost)
    fail(ErrorKind::type, op, name + " in memory of a " + view.exchange->kind() + " device",
         "an address of none");
  return view;
}

// What a capsule of ours owns.
template <class Managed>
struct Exported {
  DeviceTensor source;
  std::vector<std::int64_t> strides;
  Managed managed{};
};

template <class Managed>
void drop_capsule(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Managed::kName)) return;  // somebody took it
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::kName));
  managed->deleter(managed);
}

template <class Managed>
py::object to_capsule(const DeviceTensor& self, std::unique_ptr<Exported<Managed>> exported) {
  Shape& shape = exported->source.shape;
  exported->strides.assign(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;)
    exported->strides[i - 1] = exported->strides[i] * shape[i];
  Managed& managed = exported->managed;
  managed.tensor = {self.data,
                    {device_type(*self.exchange), self.device},
                    static_cast<std::int32_t>(shape.size()),
                    self.dtype,
                    shape.data(),
                    exported->strides.data(),
                    0};
  managed.context = exported.get();
  managed.deleter = [](Managed* own) { delete static_cast<Exported<Managed>*>(own->context); };
  PyObject* capsule = PyCapsule_New(&managed, Managed::kName, &drop_capsule<Managed>);
  if (capsule == nullptr) throw py::error_already_set();
  static_cast<void>(exported.release());
  return py::reinterpret_steal<py::object>(capsule);
}

py::object to_dlpack(const DeviceTensor& self, bool versioned, bool copied) {
  if (!versioned) {
    auto exported = std::make_unique<Exported<dlpack::ManagedTensor>>();
    exported->source = self;
    return to_capsule(self, std::move(exported));
  }
  auto exported = std::make_unique<Exported<dlpack::ManagedTensorVersioned>>();
  exported->source = self;
  exported->managed.version = dlpack::kVersion;
  exported->managed.flags = copied ? dlpack::kIsCopied : 0;
  return to_capsule(self, std::move(exported));
}

DeviceTensor copy(const DeviceTensor& self) {
  DeviceTensor made = self;
  made.memory = self.exchange->allocate(self.bytes());
  made.data = static_cast<std::byte*>(made.memory.get());
  made.device = self.exchange->leader();
  self.exchange->copy(made.data, self.data, self.device, self.bytes());
  return made;
}

py::array numpy(const DeviceTensor& self) {
  py::array out(py::dtype(self.dtype_name()),
                std::vector<py::ssize_t>(self.shape.begin(), self.shape.end()));
  void* data = out.mutable_data();
  const py::gil_scoped_release release;
  self.exchange->copy_to_host(data, self.data, self.device, self.bytes());
  return out;
}

DeviceNumbers numbers_of(const DeviceTensor& self) {
  const auto kind = [&] {
    if (self.dtype.lanes == 1) switch (self.dtype.code) {
        case dlpack::kInt: return NumberKind::signed_;
        case dlpack::kUint:
        case dlpack::kBool: return NumberKind::unsigned_;
        case dlpack::kFloat: return NumberKind::real;
      }
    fail(ErrorKind::type, "topk", "x of a real dtype", self.dtype_name());
  };
  return {self.data, self.device, kind(), static_cast<int>(self.item_bytes())};
}

// The k best along the last axis, on the host: values and indices.
py::tuple topk(const DeviceTensor& self, std::int64_t k, bool largest) {
  const std::int64_t n = self.shape.empty() ? 0 : self.shape.back();
  if (k < 1 || k > n) fail("topk", "k from 1 to " + std::to_string(n), std::to_string(k));
  const DeviceNumbers numbers = numbers_of(self);
  std::vector<py::ssize_t> shape(self.shape.begin(), self.shape.end());
  shape.back() = k;
  py::array best(py::dtype(self.dtype_name()), shape);
  py::array_t<std::int64_t> indices(shape);
  void* values = best.mutable_data();
  std::int64_t* places = indices.mutable_data();
  {
    const py::gil_scoped_release release;
    self.exchange->topk(numbers, element_count(self.shape) / n, n, k, largest, places, values);
  }
  return py::make_tuple(best, indices);
}

DeviceTensor reshape(const DeviceTensor& self, const Shape& shape) {
  if (element_count(shape) != element_count(self.shape))
    fail("reshape", std::to_string(element_count(self.shape)) + " elements", to_string(shape));
  DeviceTensor view = self;
  view.shape = shape;
  return view;
}

DeviceTensor rows(const DeviceTensor& self, std::int64_t first, std::int64_t last) {
  if (self.shape.empty() || first < 0 || first > last || last > self.shape[0])
    fail("rows", "a range of the first axis",
         std::to_string(first) + " to " + std::to_string(last));
  DeviceTensor view = self;
  view.shape[0] = last - first;
  const std::int64_t row = self.shape[0] == 0 ? 0 : self.bytes() / self.shape[0];
  view.data += first * row;
  return view;
}

void bind_exchange(py::module_& module) {
  py::class_<Exchange, std::shared_ptr<Exchange>>(module, "Exchange")
      .def_property_readonly("kind", &Exchange::kind)
      .def_property_readonly("leader", &Exchange::leader)
      .def("stream", &Exchange::stream, py::arg("device"))
      .def("wait_for", &Exchange::wait_for, py::arg("device"), py::arg("stream"))
      .def("go_before", &Exchange::go_before, py::arg("device"), py::arg("stream"));
}

}  // namespace

std::string DeviceTensor::dtype_name() const {
  return type_name(dtype);
}

DeviceTensor make_device_tensor(std::shared_ptr<Exchange> exchange, Shape shape) {
  DeviceTensor made;
  made.device = exchange->leader();
  made.shape = std::move(shape);
  made.memory = exchange->allocate(made.bytes());
  made.data = static_cast<std::byte*>(made.memory.get());
  made.exchange = std::move(exchange);
  return made;
}

void bind_device_tensor(py::module_& module) {
  bind_exchange(module);
  py::class_<DeviceTensor>(module, "DeviceTensor")
      .def_static("from_capsule", &from_capsule, py::arg("exchange"), py::arg("capsule"),
                  py::arg("op"), py::arg("name"))
      .def_static("borrow", &borrow, py::arg("exchange"), py::arg("owner"), py::arg("address"),
                  py::arg("shape"), py::arg("code"), py::arg("bits"), py::arg("op"),
                  py::arg("name"))
      .def_property_readonly("exchange", [](const DeviceTensor& self) { return self.exchange; })
      .def_property_readonly(
          "address",
          [](const DeviceTensor& self) { return reinterpret_cast<std::uintptr_t>(self.data); })
      .def_property_readonly("device", [](const DeviceTensor& self) { return self.device; })
      .def_property_readonly("device_type",
                             [](const DeviceTensor& self) { return device_type(*self.exchange); })
      .def_property_readonly("dtype", &DeviceTensor::dtype_name)
      .def_property_readonly("nbytes", &DeviceTensor::bytes)
      .def_property_readonly(
          "shape", [](const DeviceTensor& self) { return py::tuple(py::cast(self.shape)); })
      .def("to_dlpack", &to_dlpack, py::arg("versioned"), py::arg("copied"))
      .def("copy", &copy)
      .def("numpy", &numpy)
      .def("topk", &topk, py::arg("k"), py::arg("largest"))
      .def("reshape", &reshape, py::arg("shape"))
      .def("rows", &rows, py::arg("first"), py::arg("last"));
}

}  // namespace marketplace::bindings
