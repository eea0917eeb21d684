// The stages of a chain as every device of a team runs them.
#pragma once

#include <memory>
#include <vector>

#include "gpu/node/segment.h"
#include "graph/stage_parts.h"

namespace marketplace::gpu {

struct NodeStage {
  // Reads its input as `in_layout` says.
  NodeStage(const Models& models, const Chain& chain, std::size_t index,
            const std::vector<std::int64_t>& counts, Layout in_layout);

  // The contraction as lowered: it reads the stage's input as it comes.
  const Contraction& contraction() const { return sum->program.steps.front().contraction; }
  const Layout& out_layout() const { return rest->program.output_layout; }

  StageParts parts;
  std::shared_ptr<Segment> sum, rest;     // rest: null at the last stage; variant 1 + k of probe k
  std::shared_ptr<Segment> spread, tail;  // a row for every disturbed channel; null where there
                                          // is none
  std::int64_t gradient_at = 0;           // floats into a piece's sums: (O, K + 1)
  std::int64_t changes_at = 0;            // doubles into a piece's: (probes, channels)
};

// Everything that devices share.
struct NodeMarket {
  NodeMarket(const Models& models, const std::vector<std::int64_t>& counts,
             const Shape& input_shape);

  Models models;
  std::int64_t first_spec;  // that is trained
  Shape input_shape, chain_shape;
  std::shared_ptr<Segment> entry;  // ops before the first contraction, planar to planar; or null
  Layout in_layout;                // of the first stage's input
  std::vector<NodeStage> stages;
  std::int64_t gradient_floats = 0, change_doubles = 0;  // of a piece
  std::int64_t classes() const { return stages.back().parts.sum_floats; }
};

}  // namespace marketplace::gpu
