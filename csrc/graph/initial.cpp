#include "graph/initial.h"

#include <algorithm>
#include <cmath>

#include "core/threefry.h"

namespace marketplace {
namespace {

void draw(Model& model, int id, float bound, std::uint64_t seed, std::uint32_t& counter) {
  const std::int64_t count = model.size(id), half = block_count(count);
  float* values = model.data(id);
  for (std::int64_t j = 0; j < half; ++j) {
    const std::uint32_t c0 = counter + static_cast<std::uint32_t>(j);
    const RandomWords words = threefry2x32(seed, c0, c0 + static_cast<std::uint32_t>(half));
    values[j] = word_to_delta(words.lane0, bound);
    if (half + j < count) values[half + j] = word_to_delta(words.lane1, bound);
  }
  counter += static_cast<std::uint32_t>(count);
}

void fill(Model& model, int id, float value) {
  if (id >= 0) std::fill_n(model.data(id), model.size(id), value);
}

}  // namespace

void set_initial_values(Model& model, std::uint64_t seed, std::uint32_t& counter) {
  const Graph& graph = model.graph();
  for (const Op& op : graph.ops) {
    if (op.kind == OpKind::conv2d || op.kind == OpKind::linear) {
      const Shape& shape = graph.parameters[op.weight].shape;
      const double fan_in = static_cast<double>(element_count(shape) / shape[0]);
      const auto bound = static_cast<float>(1 / std::sqrt(fan_in));
      draw(model, op.weight, bound, seed, counter);
      if (op.bias >= 0) draw(model, op.bias, bound, seed, counter);
    } else {
      fill(model, op.weight, 1);
      fill(model, op.bias, 0);
      fill(model, op.running_mean, 0);
      fill(model, op.running_var, 1);
    }
  }
}

}  // namespace marketplace
