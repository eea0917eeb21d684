#include "graph/readers.h"

namespace marketplace {
namespace {

std::vector<bool> reduced_axes(const Op& mean, std::size_t rank) {
  std::vector<bool> reduced(rank, mean.axes.empty());
  const auto full = static_cast<std::int64_t>(rank) + 1;
  for (std::int64_t axis : mean.axes) reduced[(axis < 0 ? axis + full : axis) - 1] = true;
  return reduced;
}

}  // namespace

Layout image_layout(const Shape& shape) {
  return shape.size() == 3 ? Layout{shape[0], shape[1] * shape[2]} : Layout{};
}

Readers::Readers(const Graph& graph)
    : graph_(graph), live_(graph.ops.size(), false), uses_(graph.ops.size(), 0) {
  visit(graph.output);
}

void Readers::visit(int node) {
  if (live_[node]) return;
  live_[node] = true;
  const Op& op = graph_.ops[node];
  for (int input : {op.a, op.b})
    if (input >= 0) ++uses_[input], visit(input);
}

int Readers::only(int node) const {
  if (uses_[node] != 1 || node == graph_.output) return -1;
  for (int next = node + 1; next < static_cast<int>(graph_.ops.size()); ++next)
    if (live_[next] && (graph_.ops[next].a == node || graph_.ops[next].b == node)) return next;
  return -1;
}

bool side_by_side(const Window& window) {
  for (int axis : {0, 1})
    if (window.kernel[axis] != window.stride[axis] || window.padding[axis] != 0 ||
        window.dilation[axis] != 1)
      return false;
  return true;
}

bool averages_pixels(const Op& mean, const Shape& in) {
  if (in.size() != 3) return false;
  const std::vector<bool> reduced = reduced_axes(mean, 3);
  return !reduced[0] && reduced[1] && reduced[2];
}

std::vector<MeanPass> mean_passes(const Op& mean, const Shape& in) {
  const std::vector<bool> reduced = reduced_axes(mean, in.size());
  std::vector<MeanPass> passes;
  std::int64_t inner = 1;
  for (std::size_t end = in.size(); end > 0;) {
    std::size_t start = end;
    std::int64_t axis = 1;
    while (start > 0 && reduced[start - 1] == reduced[end - 1]) axis *= in[--start];
    if (reduced[end - 1])
      passes.push_back({element_count(Shape(in.begin(), in.begin() + start)), axis, inner});
    else
      inner *= axis;
    end = start;
  }
  return passes;
}

}  // namespace marketplace
