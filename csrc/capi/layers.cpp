// Building a market: every call records one op of the newest spec.
#include <cmath>
#include <string>
#include <utility>

#include "capi/handles.h"
#include "capi/options.h"

namespace marketplace::capi {
namespace {

constexpr std::size_t kLongestKey = 200;
constexpr std::int64_t kMostAxes = 16;

mp_market::Spec& newest_spec(mp_market* market, const char* op) {
  mp_market& own = required(market, op, "a market");
  if (own.finished)
    fail(ErrorKind::runtime, op, "a market before mp_market_finish", "a finished one");
  if (own.specs.empty()) fail(ErrorKind::runtime, op, "mp_add_spec before it", "no spec");
  return own.specs.back();
}

int checked_value(const Graph& graph, mp_value x, const char* op) {
  return static_cast<int>(
      in_range(x, 0, static_cast<std::int64_t>(graph.ops.size()) - 1, op, "a value"));
}

// One more op on a copy of the graph, which replaces the graph when nothing can fail any more.
struct Draft {
  Graph graph;
  Op op;
  std::string key;
  const char* name;

  void set_key(const char* given) {
    if (given == nullptr) return;
    key = given;
    const bool plain = key.find_first_not_of(
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") ==
                       std::string::npos;
    if (key.empty() || key.size() > kLongestKey || !plain)
      fail(name, "a key of 1 to 200 letters, digits, '.', '_' and '-'", "another");
    op.layer = key;
  }

  int parameter(const char* field, const Shape& shape, bool buffer = false) {
    checked_count(shape.data(), static_cast<std::int64_t>(shape.size()), name);
    return graph.add_parameter(key + "." + field, shape, buffer);
  }
};

template <class Write>
mp_status add_layer(const char* name, OpKind kind, mp_market* market, mp_value x, mp_value* out,
                    Write&& write) noexcept {
  return guarded([&] {
    mp_market::Spec& spec = newest_spec(market, name);
    Graph& graph = spec.graph;
    required(out, name, "an address for the value");
    Draft draft{graph, {}, "layers." + std::to_string(graph.ops.size() - 1), name};
    draft.op.kind = kind;
    draft.op.a = checked_value(graph, x, name);
    draft.op.layer = draft.key;
    write(draft);
    const int node = draft.graph.add_op(std::move(draft.op));
    if (!spec.output_named) draft.graph.set_output(node);
    graph = std::move(draft.graph);
    *out = node;
  });
}

void set_window(const std::int64_t (&given)[2], std::int64_t least, const std::int64_t (&zero)[2],
                std::int64_t (&target)[2], const char* op, const char* name) {
  for (int axis = 0; axis < 2; ++axis)
    target[axis] = extent(given[axis] == 0 ? zero[axis] : given[axis], least, op, name);
}

constexpr std::int64_t kNone[2] = {0, 0}, kOne[2] = {1, 1}, kTwo[2] = {2, 2};

template <class Options>
void set_windows(const Options& options, const std::int64_t (&kernel)[2], bool pool, Draft& draft) {
  Window& window = draft.op.window;
  set_window(options.kernel, 1, kernel, window.kernel, draft.name, "kernel");
  set_window(options.stride, 1, pool ? window.kernel : kOne, window.stride, draft.name, "stride");
  set_window(options.padding, 0, kNone, window.padding, draft.name, "padding");
  set_window(options.dilation, 1, kOne, window.dilation, draft.name, "dilation");
}

void write_conv2d(const mp_conv2d_options* given, Draft& draft) {
  const auto options = read_options(given, draft.name);
  draft.set_key(options.key);
  set_windows(options, kNone, false, draft);
  const std::int64_t inputs = extent(options.in_channels, 1, draft.name, "in_channels");
  const std::int64_t outputs = extent(options.out_channels, 1, draft.name, "out_channels");
  const std::int64_t groups =
      extent(options.groups == 0 ? 1 : options.groups, 1, draft.name, "groups");
  if (inputs % groups != 0)
    fail(draft.name, "groups that divide the " + std::to_string(inputs) + " input channels",
         std::to_string(groups));
  draft.op.groups = groups;
  const std::int64_t* kernel = draft.op.window.kernel;
  draft.op.weight = draft.parameter("weight", {outputs, inputs / groups, kernel[0], kernel[1]});
  if (options.no_bias == 0) draft.op.bias = draft.parameter("bias", {outputs});
}

void write_linear(const mp_linear_options* given, Draft& draft) {
  const auto options = read_options(given, draft.name);
  draft.set_key(options.key);
  const std::int64_t outputs = extent(options.out_features, 1, draft.name, "out_features");
  draft.op.weight = draft.parameter(
      "weight", {outputs, extent(options.in_features, 1, draft.name, "in_features")});
  if (options.no_bias == 0) draft.op.bias = draft.parameter("bias", {outputs});
}

// What the norms share; shape: of weight and bias.
void write_norm(const mp_norm_options* given, const Shape& shape, Draft& draft) {
  auto options = read_optional(given, draft.name);
  draft.set_key(options.key);
  if (options.eps == 0) options.eps = 1e-5;
  if (options.momentum == 0) options.momentum = 0.1;
  if (!(options.eps > 0 && std::isfinite(options.eps)))
    fail(draft.name, "a finite eps above 0", std::to_string(options.eps));
  if (!(options.momentum > 0 && options.momentum <= 1))
    fail(draft.name, "momentum above 0 and at most 1", std::to_string(options.momentum));
  draft.op.eps = options.eps;
  draft.op.momentum = options.momentum;
  if (options.no_affine != 0) return;
  draft.op.weight = draft.parameter("weight", shape);
  draft.op.bias = draft.parameter("bias", shape);
}

void write_channel_norm(const mp_norm_options* options, std::int64_t channels, Draft& draft) {
  draft.op.channels = extent(channels, 1, draft.name, "channels");
  write_norm(options, {channels}, draft);
  if (draft.op.kind != OpKind::batch_norm) return;
  draft.op.running_mean = draft.parameter("running_mean", {channels}, true);
  draft.op.running_var = draft.parameter("running_var", {channels}, true);
  draft.parameter("num_batches_tracked", {}, true);
}

Shape read_shape(const std::int64_t* shape, std::int32_t ndim, const char* op) {
  in_range(ndim, 0, kMostAxes, op, "dimensions");
  if (ndim == 0) return {};
  required(shape, op, "a shape");
  return Shape(shape, shape + ndim);
}

void write_reshape(const std::int64_t* shape, std::int32_t ndim, Draft& draft) {
  draft.op.shape = read_shape(shape, ndim, draft.name);
  Shape known;
  for (std::int64_t own : draft.op.shape)
    if (own != -1) known.push_back(own);
  checked_count(known.data(), static_cast<std::int64_t>(known.size()), draft.name);
}

UnaryKind unary(mp_activation_kind kind, const char* op) {
  switch (kind) {
    case MP_RELU: return UnaryKind::relu;
    case MP_GELU: return UnaryKind::gelu;
    case MP_GELU_TANH: return UnaryKind::gelu_tanh;
    case MP_SIGMOID: return UnaryKind::sigmoid;
    case MP_TANH: return UnaryKind::tanh;
    default: fail(op, "a kind from MP_RELU to MP_TANH", std::to_string(kind));
  }
}

double finite(double value, const char* op, const char* name) {
  if (!std::isfinite(value)) fail(op, std::string("a finite ") + name, std::to_string(value));
  return value;
}

mp_status add_pool(const char* name, OpKind kind, mp_market* market, mp_value x,
                   const mp_pool2d_options* given, mp_value* out) noexcept {
  return add_layer(name, kind, market, x, out, [&](Draft& draft) {
    const auto options = read_optional(given, name);
    set_windows(options, kTwo, true, draft);
    draft.op.count_include_pad = options.exclude_pad == 0;
  });
}

mp_status add_binary(const char* name, OpKind kind, mp_market* market, mp_value a, mp_value b,
                     mp_value* out) noexcept {
  return add_layer(name, kind, market, a, out,
                   [&](Draft& draft) { draft.op.b = checked_value(draft.graph, b, name); });
}

}  // namespace
}  // namespace marketplace::capi

using namespace marketplace;
using namespace marketplace::capi;

mp_status mp_conv2d(mp_market* market, mp_value x, const mp_conv2d_options* options,
                    mp_value* out) {
  return add_layer("conv2d", OpKind::conv2d, market, x, out,
                   [&](Draft& draft) { write_conv2d(options, draft); });
}

mp_status mp_linear(mp_market* market, mp_value x, const mp_linear_options* options,
                    mp_value* out) {
  return add_layer("linear", OpKind::linear, market, x, out,
                   [&](Draft& draft) { write_linear(options, draft); });
}

mp_status mp_instance_norm(mp_market* market, mp_value x, int64_t channels,
                           const mp_norm_options* options, mp_value* out) {
  return add_layer("instance_norm", OpKind::instance_norm, market, x, out,
                   [&](Draft& draft) { write_channel_norm(options, channels, draft); });
}

mp_status mp_batch_norm(mp_market* market, mp_value x, int64_t channels,
                        const mp_norm_options* options, mp_value* out) {
  return add_layer("batch_norm", OpKind::batch_norm, market, x, out,
                   [&](Draft& draft) { write_channel_norm(options, channels, draft); });
}

mp_status mp_layer_norm(mp_market* market, mp_value x, const int64_t* shape, int32_t ndim,
                        const mp_norm_options* options, mp_value* out) {
  return add_layer("layer_norm", OpKind::layer_norm, market, x, out, [&](Draft& draft) {
    in_range(ndim, 1, kMostAxes, draft.name, "dimensions");
    draft.op.shape = read_shape(shape, ndim, draft.name);
    checked_count(shape, ndim, draft.name);
    write_norm(options, draft.op.shape, draft);
  });
}

mp_status mp_activation(mp_market* market, mp_value x, mp_activation_kind kind, mp_value* out) {
  return add_layer("activation", OpKind::unary, market, x, out,
                   [&](Draft& draft) { draft.op.unary = unary(kind, draft.name); });
}

mp_status mp_max_pool2d(mp_market* market, mp_value x, const mp_pool2d_options* options,
                        mp_value* out) {
  return add_pool("max_pool2d", OpKind::max_pool2d, market, x, options, out);
}

mp_status mp_avg_pool2d(mp_market* market, mp_value x, const mp_pool2d_options* options,
                        mp_value* out) {
  return add_pool("avg_pool2d", OpKind::avg_pool2d, market, x, options, out);
}

mp_status mp_flatten(mp_market* market, mp_value x, int64_t start, int64_t end, mp_value* out) {
  return add_layer("flatten", OpKind::flatten, market, x, out, [&](Draft& draft) {
    in_range(start, -kMostAxes, kMostAxes, draft.name, "start");
    in_range(end, -kMostAxes, kMostAxes, draft.name, "end");
    draft.op.axes = {start, end};
  });
}

mp_status mp_reshape(mp_market* market, mp_value x, const int64_t* shape, int32_t ndim,
                     mp_value* out) {
  return add_layer("reshape", OpKind::reshape, market, x, out,
                   [&](Draft& draft) { write_reshape(shape, ndim, draft); });
}

mp_status mp_mean(mp_market* market, mp_value x, const int64_t* axes, int32_t axis_count,
                  int32_t keepdim, mp_value* out) {
  return add_layer("mean", OpKind::mean, market, x, out, [&](Draft& draft) {
    draft.op.axes = read_shape(axes, axis_count, draft.name);
    for (std::int64_t axis : draft.op.axes)
      in_range(axis, -kMostAxes, kMostAxes, draft.name, "an axis");
    draft.op.keepdim = keepdim != 0;
  });
}

mp_status mp_add(mp_market* market, mp_value a, mp_value b, mp_value* out) {
  return add_binary("add", OpKind::add, market, a, b, out);
}

mp_status mp_multiply(mp_market* market, mp_value a, mp_value b, mp_value* out) {
  return add_binary("multiply", OpKind::multiply, market, a, b, out);
}

mp_status mp_affine(mp_market* market, mp_value x, double scale, double shift, mp_value* out) {
  return add_layer("affine", OpKind::affine, market, x, out, [&](Draft& draft) {
    draft.op.scale = finite(scale, draft.name, "scale");
    draft.op.shift = finite(shift, draft.name, "shift");
  });
}

mp_status mp_set_output(mp_market* market, mp_value x) {
  return guarded([&] {
    mp_market::Spec& spec = newest_spec(market, "set_output");
    spec.graph.set_output(checked_value(spec.graph, x, "set_output"));
    spec.output_named = true;
  });
}
