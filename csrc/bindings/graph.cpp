// Graph and Model for Python.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "graph/model.h"

namespace marketplace::bindings {
namespace {

using Pair = std::pair<std::int64_t, std::int64_t>;

Op make_op(OpKind kind, int a, const std::string& layer) {
  Op op;
  op.kind = kind;
  op.a = a;
  op.layer = layer;
  return op;
}

void set_pair(std::int64_t (&target)[2], const Pair& pair) {
  target[0] = pair.first;
  target[1] = pair.second;
}

void bind_layers(py::class_<Graph>& graph) {
  graph.def(
      "conv2d",
      [](Graph& self, int x, int weight, std::optional<int> bias, Pair stride, Pair padding,
         Pair dilation, std::int64_t groups, const std::string& layer) {
        Op op = make_op(OpKind::conv2d, x, layer);
        op.weight = weight;
        op.bias = bias.value_or(-1);
        const Shape& shape = self.parameters.at(weight).shape;
        if (shape.size() == 4) set_pair(op.window.kernel, {shape[2], shape[3]});
        set_pair(op.window.stride, stride);
        set_pair(op.window.padding, padding);
        set_pair(op.window.dilation, dilation);
        op.groups = groups;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("stride"),
      py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("layer"));
  graph.def(
      "linear",
      [](Graph& self, int x, int weight, std::optional<int> bias, const std::string& layer) {
        Op op = make_op(OpKind::linear, x, layer);
        op.weight = weight;
        op.bias = bias.value_or(-1);
        return self.add_op(op);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("layer"));
}

void bind_norms(py::class_<Graph>& graph) {
  graph.def(
      "instance_norm",
      [](Graph& self, int x, std::optional<int> weight, std::optional<int> bias,
         std::int64_t channels, double eps, const std::string& layer) {
        Op op = make_op(OpKind::instance_norm, x, layer);
        op.weight = weight.value_or(-1);
        op.bias = bias.value_or(-1);
        op.channels = channels;
        op.eps = eps;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("channels"),
      py::arg("eps"), py::arg("layer"));
  graph.def(
      "batch_norm",
      [](Graph& self, int x, std::optional<int> weight, std::optional<int> bias, int running_mean,
         int running_var, double eps, double momentum, const std::string& layer) {
        Op op = make_op(OpKind::batch_norm, x, layer);
        op.weight = weight.value_or(-1);
        op.bias = bias.value_or(-1);
        op.running_mean = running_mean;
        op.running_var = running_var;
        op.channels = self.parameters.at(running_mean).shape.at(0);
        op.eps = eps;
        op.momentum = momentum;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("running_mean"),
      py::arg("running_var"), py::kw_only(), py::arg("eps"), py::arg("momentum"), py::arg("layer"));
  graph.def(
      "layer_norm",
      [](Graph& self, int x, std::optional<int> weight, std::optional<int> bias, const Shape& shape,
         double eps, const std::string& layer) {
        Op op = make_op(OpKind::layer_norm, x, layer);
        op.weight = weight.value_or(-1);
        op.bias = bias.value_or(-1);
        op.shape = shape;
        op.eps = eps;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("shape"),
      py::arg("eps"), py::arg("layer"));
}

int add_pool(Graph& self, OpKind kind, int x, Pair kernel, Pair stride, Pair padding, Pair dilation,
             bool count_include_pad, const std::string& layer) {
  Op op = make_op(kind, x, layer);
  set_pair(op.window.kernel, kernel);
  set_pair(op.window.stride, stride);
  set_pair(op.window.padding, padding);
  set_pair(op.window.dilation, dilation);
  op.count_include_pad = count_include_pad;
  return self.add_op(op);
}

void bind_pools(py::class_<Graph>& graph) {
  graph.def(
      "max_pool2d",
      [](Graph& self, int x, Pair kernel, Pair stride, Pair padding, Pair dilation,
         const std::string& layer) {
        return add_pool(self, OpKind::max_pool2d, x, kernel, stride, padding, dilation, true,
                        layer);
      },
      py::arg("x"), py::kw_only(), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("layer"));
  graph.def(
      "avg_pool2d",
      [](Graph& self, int x, Pair kernel, Pair stride, Pair padding, Pair dilation,
         bool count_include_pad, const std::string& layer) {
        return add_pool(self, OpKind::avg_pool2d, x, kernel, stride, padding, dilation,
                        count_include_pad, layer);
      },
      py::arg("x"), py::kw_only(), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("count_include_pad"), py::arg("layer"));
}

void bind_shapes(py::class_<Graph>& graph) {
  graph.def(
      "mean",
      [](Graph& self, int x, const std::vector<std::int64_t>& axes, bool keepdim,
         const std::string& layer) {
        Op op = make_op(OpKind::mean, x, layer);
        op.axes = axes;
        op.keepdim = keepdim;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("axes"), py::arg("keepdim"), py::kw_only(), py::arg("layer"));
  graph.def(
      "reshape",
      [](Graph& self, int x, const Shape& shape, const std::string& layer) {
        Op op = make_op(OpKind::reshape, x, layer);
        op.shape = shape;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("shape"), py::kw_only(), py::arg("layer"));
  graph.def(
      "flatten",
      [](Graph& self, int x, std::int64_t start, std::int64_t end, const std::string& layer) {
        Op op = make_op(OpKind::flatten, x, layer);
        op.axes = {start, end};
        return self.add_op(op);
      },
      py::arg("x"), py::arg("start_dim"), py::arg("end_dim"), py::kw_only(), py::arg("layer"));
}

void bind_elementwise(py::class_<Graph>& graph) {
  graph.def(
      "unary",
      [](Graph& self, int x, const std::string& kind, const std::string& layer) {
        Op op = make_op(OpKind::unary, x, layer);
        op.unary = unary_kind(kind);
        return self.add_op(op);
      },
      py::arg("x"), py::arg("kind"), py::kw_only(), py::arg("layer"));
  const auto binary = [](OpKind kind) {
    return [kind](Graph& self, int a, int b, const std::string& layer) {
      Op op = make_op(kind, a, layer);
      op.b = b;
      return self.add_op(op);
    };
  };
  graph.def("add", binary(OpKind::add), py::arg("a"), py::arg("b"), py::kw_only(),
            py::arg("layer"));
  graph.def("multiply", binary(OpKind::multiply), py::arg("a"), py::arg("b"), py::kw_only(),
            py::arg("layer"));
  graph.def(
      "affine",
      [](Graph& self, int x, double scale, double shift, const std::string& layer) {
        Op op = make_op(OpKind::affine, x, layer);
        op.scale = scale;
        op.shift = shift;
        return self.add_op(op);
      },
      py::arg("x"), py::arg("scale"), py::arg("shift"), py::kw_only(), py::arg("layer"));
}

std::vector<std::string> keys(const Model& model, bool buffers) {
  std::vector<std::string> out;
  for (int id : model.sorted_ids())
    if (buffers || !model.graph().parameters[id].buffer)
      out.push_back(model.graph().parameters[id].key);
  return out;
}

void set_parameter(Model& model, const std::string& key, const Array<float>& value) {
  const int id = model.find(key);
  const Shape& expected = model.graph().parameters[id].shape;
  const Shape received(value.shape(), value.shape() + value.ndim());
  if (received != expected) fail("parameter " + key, to_string(expected), to_string(received));
  const float *first = value.data(), *last = first + value.size();
  const py::gil_scoped_release release;
  const std::unique_lock access(model.access());
  std::copy(first, last, model.data(id));
}

Array<float> get_parameter(const Model& model, const std::string& key) {
  const int id = model.find(key);
  const Shape& shape = model.graph().parameters[id].shape;
  Array<float> out(std::vector<py::ssize_t>(shape.begin(), shape.end()));
  float* to = out.mutable_data();
  {
    const py::gil_scoped_release release;
    const std::shared_lock access(model.access());
    std::copy(model.data(id), model.data(id) + model.size(id), to);
  }
  return out;
}

void bind_model(py::module_& module) {
  py::class_<Model, std::shared_ptr<Model>>(module, "Model")
      .def(py::init<Graph>(), py::arg("graph"))
      .def_property_readonly("keys", [](const Model& self) { return keys(self, true); })
      .def_property_readonly("parameter_keys", [](const Model& self) { return keys(self, false); })
      .def_property_readonly("parameter_count", &Model::parameter_count)
      .def_property_readonly("counter_end", &Model::counter_end)
      .def(
          "shape",
          [](const Model& self, const std::string& key) {
            return py::tuple(py::cast(self.graph().parameters[self.find(key)].shape));
          },
          py::arg("key"))
      .def("get", &get_parameter, py::arg("key"))
      .def("set", &set_parameter, py::arg("key"), py::arg("value"))
      .def(
          "output_shape",
          [](const Model& self, const Shape& input) {
            return py::tuple(py::cast(infer_shapes(self.graph(), input)[self.graph().output]));
          },
          py::arg("input_shape"))
      .def(
          "flops",
          [](const Model& self, const Shape& input) {
            return count_flops(self.graph(), infer_shapes(self.graph(), input));
          },
          py::arg("input_shape"));
}

}  // namespace

void bind_graph(py::module_& module) {
  py::class_<Graph> graph(module, "Graph");
  graph.def(py::init<>())
      .def(
          "parameter",
          [](Graph& self, const std::string& key, const Shape& shape) {
            return self.add_parameter(key, shape, false);
          },
          py::arg("key"), py::arg("shape"))
      .def(
          "buffer",
          [](Graph& self, const std::string& key, const Shape& shape) {
            return self.add_parameter(key, shape, true);
          },
          py::arg("key"), py::arg("shape"))
      .def("input", [](const Graph&) { return 0; })
      .def("set_output", &Graph::set_output, py::arg("x"));
  bind_layers(graph);
  bind_norms(graph);
  bind_pools(graph);
  bind_shapes(graph);
  bind_elementwise(graph);
  bind_model(module);
}

}  // namespace marketplace::bindings
