#include "graph/chain.h"

#include <algorithm>
#include <map>
#include <string>

#include "core/error.h"

namespace marketplace {
namespace {

constexpr const char* kOp = "plan 'node'";

[[noreturn]] void refuse(const Op& op, const std::string& expected) {
  fail(kOp, expected, op_name(op.kind) + " in " + op.layer);
}

// The ops of one spec from its input to its output.
std::vector<int> walk(const Graph& graph) {
  std::vector<int> nodes;
  for (int node = graph.output; node != 0; node = graph.ops[node].a) {
    if (graph.ops[node].b >= 0) refuse(graph.ops[node], "layers one after another, no branches");
    nodes.push_back(node);
  }
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

bool is_contraction(const Op& op) {
  return op.kind == OpKind::conv2d || op.kind == OpKind::linear;
}

// Whether the axes of a mean over (B, C, H, W) are the pixels.
bool is_pixel_mean(const Op& op, const Shape& in) {
  if (in.size() != 3 || op.axes.size() != 2) return false;
  std::vector<std::int64_t> axes;
  for (std::int64_t axis : op.axes) axes.push_back(axis < 0 ? axis + 4 : axis);
  std::sort(axes.begin(), axes.end());
  return axes[0] == 2 && axes[1] == 3;
}

void check_contraction(const Op& op, const Shape& in) {
  if (op.kind == OpKind::conv2d && op.groups != 1) refuse(op, "convolutions without groups");
  if (op.kind == OpKind::linear && in.size() != 1) refuse(op, "linear layers on (B, C)");
}

void check_channelwise(const Op& op, const Shape& in, const Shape& out) {
  switch (op.kind) {
    case OpKind::unary:
    case OpKind::affine:
    case OpKind::instance_norm:
    case OpKind::max_pool2d:
    case OpKind::avg_pool2d: return;
    case OpKind::reshape:
    case OpKind::flatten:
      if (out.size() == 1 || out == in) return;
      refuse(op, "values flattened to (B, C * H * W)");
    case OpKind::mean:
      if (is_pixel_mean(op, in)) return;
      refuse(op, "a mean over pixels");
    default: refuse(op, "ops that keep samples and channels apart");
  }
}

}  // namespace

Chain make_chain(const std::vector<std::shared_ptr<Model>>& models, int first, const Shape& shape) {
  Chain chain;
  Shape at = shape;
  for (int spec = first; spec < static_cast<int>(models.size()); ++spec) {
    const Graph& graph = models[spec]->graph();
    const std::vector<Shape> shapes = infer_shapes(graph, at);
    for (int node : walk(graph)) {
      const Op& op = graph.ops[node];
      if (is_contraction(op)) {
        check_contraction(op, shapes[op.a]);
        chain.stages.push_back({{spec, node}, {}, shapes[op.a], shapes[node], shapes[node]});
        continue;
      }
      if (chain.stages.empty()) {
        chain.entry.push_back({spec, node});
        continue;
      }
      check_channelwise(op, shapes[op.a], shapes[node]);
      chain.stages.back().channelwise.push_back({spec, node});
      chain.stages.back().out = shapes[node];
    }
    at = shapes[graph.output];
  }
  if (chain.stages.empty()) fail(kOp, "a linear layer at the end of the market", "no layer");
  const Chain::Stage& last = chain.stages.back();
  const Op& op = models[last.contraction.spec]->graph().ops[last.contraction.node];
  const auto end = last.channelwise.empty() ? last.contraction : last.channelwise.back();
  if (op.kind != OpKind::linear || !last.channelwise.empty())
    refuse(models[end.spec]->graph().ops[end.node], "a linear layer at the end of the market");
  return chain;
}

namespace {

constexpr std::int64_t kElementwise = 8;

std::int64_t contraction_flops(const std::vector<std::shared_ptr<Model>>& models,
                               const Chain::Stage& stage) {
  const Graph& graph = models[stage.contraction.spec]->graph();
  const Shape& weight = graph.parameters[graph.ops[stage.contraction.node].weight].shape;
  return 2 * element_count(stage.sum) * (element_count(weight) / weight[0]);
}

}  // namespace

int first_trained(const std::vector<std::int64_t>& counts) {
  for (std::size_t i = 0; i + 1 < counts.size(); ++i)
    if (counts[i] > 1) return static_cast<int>(i);
  return static_cast<int>(counts.size()) - 1;
}

std::int64_t chain_flops(const std::vector<std::shared_ptr<Model>>& models,
                         const std::vector<std::int64_t>& counts, const Shape& input_shape) {
  Shape shape = input_shape;
  std::int64_t total = 0;
  const int first = first_trained(counts);
  for (int i = 0; i < first; ++i) {
    const std::vector<Shape> shapes = infer_shapes(models[i]->graph(), shape);
    total += count_flops(models[i]->graph(), shapes);
    shape = shapes[models[i]->graph().output];
  }
  const Chain chain = make_chain(models, first, shape);
  std::int64_t rest = 0;  // what follows the contraction of the stage after
  for (std::size_t l = chain.stages.size(); l-- > 0;) {
    const Chain::Stage& stage = chain.stages[l];
    const std::int64_t product = contraction_flops(models, stage);
    const std::int64_t elementwise = kElementwise * element_count(stage.sum);
    const bool last = l + 1 == chain.stages.size();
    const std::int64_t probes = last ? 0 : counts[stage.contraction.spec] - 1;
    total += product * (last || probes > 0 ? 2 : 1);
    if (probes > 0) {
      const Chain::Stage& next = chain.stages[l + 1];
      // each channel alone meets the next contraction, so all of them cost one of it together
      total += probes * (elementwise + contraction_flops(models, next) + stage.channels() * rest);
    }
    rest += elementwise + (last ? 0 : contraction_flops(models, chain.stages[l + 1]));
  }
  return total;
}

Slice::Slice(const std::vector<std::shared_ptr<Model>>& models, const std::vector<Link>& links) {
  Graph graph;
  std::map<std::pair<int, int>, int> known;  // a layer may occur twice
  const auto copy = [&](int spec, int id) {
    if (id < 0) return -1;
    const auto [at, fresh] = known.emplace(std::pair{spec, id}, 0);
    if (fresh) {
      const ParameterInfo& info = models[spec]->graph().parameters[id];
      at->second =
          graph.add_parameter(std::to_string(spec) + "." + info.key, info.shape, info.buffer);
      sources_.push_back({spec, id});
    }
    return at->second;
  };
  int node = 0;
  for (const Link& link : links) {
    Op op = models[link.spec]->graph().ops[link.node];
    op.a = node;
    op.weight = copy(link.spec, op.weight);
    op.bias = copy(link.spec, op.bias);
    op.running_mean = copy(link.spec, op.running_mean);
    op.running_var = copy(link.spec, op.running_var);
    node = graph.add_op(std::move(op));
  }
  graph.set_output(node);
  model_ = std::make_unique<Model>(std::move(graph));
  refresh(models);
}

void Slice::refresh(const std::vector<std::shared_ptr<Model>>& models) {
  for (std::size_t id = 0; id < sources_.size(); ++id) {
    const Source& source = sources_[id];
    const Model& from = *models[source.spec];
    std::copy_n(from.data(source.id), from.size(source.id), model_->data(static_cast<int>(id)));
  }
}

}  // namespace marketplace
