#include <algorithm>

#include "gpu/node/stage.h"

namespace marketplace::gpu {

NodeStage::NodeStage(const Models& models, const Chain& chain, std::size_t index,
                     const std::vector<std::int64_t>& counts, Layout in_layout)
    : parts(models, chain, index, counts) {
  const StageParts& p = parts;
  const auto share = [](Segment segment) { return std::make_shared<Segment>(std::move(segment)); };
  sum = share(make_segment(*p.sum_slice, models, p.in_shape, in_layout, p.last, 1, 1));
  if (p.last) return;
  rest = share(make_segment(*p.rest_slice, models, p.sum_shape, image_layout(p.sum_shape), false,
                            p.probes + 1, std::max<std::int64_t>(1, p.probes)));
  if (p.probes == 0) return;
  spread =
      share(make_segment(*p.spread_model, p.spread_in, Layout{}, false, p.channels, p.channels));
  if (p.tail_slice)
    tail = share(make_segment(*p.tail_slice, models, p.next_sum, image_layout(p.next_sum), true, 1,
                              p.channels));
}

NodeMarket::NodeMarket(const Models& all, const std::vector<std::int64_t>& counts,
                       const Shape& shape)
    : models(all), first_spec(first_trained(counts)), input_shape(shape), chain_shape(shape) {
  for (std::int64_t i = 0; i < first_spec; ++i)
    chain_shape = infer_shapes(models[i]->graph(), chain_shape)[models[i]->graph().output];
  const Chain chain = make_chain(models, static_cast<int>(first_spec), chain_shape);
  if (!chain.entry.empty())
    entry = std::make_shared<Segment>(
        make_segment(Slice(models, chain.entry), models, chain_shape, Layout{}, true, 1, 1));
  Layout layout = in_layout = image_layout(chain.stages.front().in);
  for (std::size_t l = 0; l < chain.stages.size(); ++l) {
    NodeStage& stage = stages.emplace_back(models, chain, l, counts, layout);
    if (!stage.parts.last) layout = stage.out_layout();
    if (!stage.parts.trained) continue;
    stage.gradient_at = gradient_floats;
    stage.changes_at = change_doubles;
    gradient_floats += stage.contraction().columns * (stage.contraction().depth + 1);
    change_doubles += stage.parts.probes * stage.parts.channels;
  }
}

}  // namespace marketplace::gpu
