// What lowering a graph asks on every device: where a value's elements lie, who reads it, which
// pools and means are simple.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace marketplace {

// Where a sample's elements lie: element c * pixels + p of the value as the user sees it is at
// p * channels + c. Planar (row-major) when either is 1; images are computed channels-last, and
// stay so through reshapes for as long as nobody minds.
struct Layout {
  std::int64_t channels = 1, pixels = 1;
  bool planar() const { return channels == 1 || pixels == 1; }
  bool operator==(const Layout& other) const {
    return (planar() && other.planar()) || (channels == other.channels && pixels == other.pixels);
  }
};

// Channels last, of an image (C, H, W); planar for other shapes.
Layout image_layout(const Shape& shape);

// Which nodes of a graph its output depends on, and by how many others each is read.
class Readers {
 public:
  explicit Readers(const Graph& graph);
  bool live(int node) const { return live_[node]; }
  // The one node that reads another, -1 where there are several or the result leaves the graph.
  int only(int node) const;

 private:
  void visit(int node);

  const Graph& graph_;
  std::vector<bool> live_;
  std::vector<int> uses_;
};

// Whether a window's places lie side by side: neither overlaps, gaps nor padding.
bool side_by_side(const Window& window);

// Whether a mean runs over an image's pixels, all of them, and keeps its channels.
bool averages_pixels(const Op& mean, const Shape& in);

// One pass of a mean: of (outer, axis, inner) elements the middle axis is averaged.
struct MeanPass {
  std::int64_t outer, axis, inner;
};

// A mean over any axes, neighbouring ones at once, from the last to the first: a mean of equally
// many means is the mean.
std::vector<MeanPass> mean_passes(const Op& mean, const Shape& in);

}  // namespace marketplace
