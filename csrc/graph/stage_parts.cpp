#include "graph/stage_parts.h"

#include "core/threefry.h"

namespace marketplace {
namespace {

using Models = std::vector<std::shared_ptr<Model>>;

constexpr std::uint32_t kStageDomain = 0x6E6F6465;  // keeps these keys apart from other uses

const Op& op_of(const Models& models, const Link& link) {
  return models[link.spec]->graph().ops[link.node];
}

// Pixels beyond the order share columns. The parameters' they leave alone where enough are left: a
// parameter changes a loss as much as all pixels together, so that with it on one column there
// would be little to see of a pixel.
PixelColumns pixel_columns(std::int64_t probes, std::int64_t parameters) {
  std::int64_t order = 1;
  while (order < probes) order *= 2;
  return {static_cast<std::uint32_t>(1 + parameters),
          static_cast<std::uint32_t>(order < 4 * parameters ? order : order - parameters)};
}

}  // namespace

StageParts::StageParts(const Models& models, const Chain& chain, std::size_t index,
                       const std::vector<std::int64_t>& counts)
    : contraction(chain.stages[index].contraction),
      spec(contraction.spec),
      last(index + 1 == chain.stages.size()),
      probes(last ? 0 : counts[spec] - 1),
      trained(last || probes > 0),
      in_shape(chain.stages[index].in),
      sum_shape(chain.stages[index].sum),
      out_shape(chain.stages[index].out),
      channels(chain.stages[index].channels()),
      pixels(chain.stages[index].pixels()),
      out_pixels(chain.stages[index].out_pixels()),
      in_floats(element_count(in_shape)),
      sum_floats(element_count(sum_shape)),
      out_floats(element_count(out_shape)),
      sum_slice(std::make_unique<Slice>(models, std::vector<Link>{contraction})) {
  if (last) return;
  next = chain.stages[index + 1].contraction;
  next_sum = chain.stages[index + 1].sum;
  rest_slice = std::make_unique<Slice>(models, chain.stages[index].channelwise);
  learns.resize(rest_slice->sources().size());
  for (std::size_t id = 0; id < learns.size(); ++id)
    learns[rest_slice->model().offset(static_cast<int>(id)) / channels] =
        counts[rest_slice->sources()[id].spec] > 1;
  if (probes == 0) return;
  columns = pixel_columns(probes, static_cast<std::int64_t>(learns.size()));
  build_spread(models);
  build_tail(models, chain, index);
}

// It sees a channel's change alone.
void StageParts::build_spread(const Models& models) {
  Op op = op_of(models, next);
  Shape weight = models[next.spec]->graph().parameters[op.weight].shape;
  const bool image = op.kind == OpKind::conv2d;
  weight[1] = image ? 1 : out_pixels;
  Graph graph;
  op.weight = graph.add_parameter("weight", weight, false);
  op.bias = -1;
  op.a = 0;
  graph.set_output(graph.add_op(std::move(op)));
  spread_model = std::make_unique<Model>(std::move(graph));
  spread_in = image ? Shape{1, out_shape[1], out_shape[2]} : Shape{out_pixels};
}

// A clamp at its start joins the addition before it.
void StageParts::build_tail(const Models& models, const Chain& chain, std::size_t index) {
  if (index + 2 == chain.stages.size()) return;
  std::vector<Link> links = chain.stages[index + 1].channelwise;
  for (std::size_t l = index + 2; l < chain.stages.size(); ++l) {
    links.push_back(chain.stages[l].contraction);
    links.insert(links.end(), chain.stages[l].channelwise.begin(),
                 chain.stages[l].channelwise.end());
  }
  const Op& first = op_of(models, links.front());
  relu_first = first.kind == OpKind::unary && first.unary == UnaryKind::relu;
  if (relu_first) links.erase(links.begin());
  tail_slice = std::make_unique<Slice>(models, links);
}

std::uint64_t StageParts::sign_key(const std::vector<std::uint64_t>& seeds) const {
  if (probes == 0) return 0;
  const RandomWords words =
      threefry2x32(seeds[1], static_cast<std::uint32_t>(contraction.node), kStageDomain);
  return words.lane0 | static_cast<std::uint64_t>(words.lane1) << 32;
}

}  // namespace marketplace
