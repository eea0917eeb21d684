// A market seen as a chain: contractions (conv2d, linear), each followed by ops that keep channels
// apart. What one channel of a contraction's result turns into then depends on that channel alone,
// until the next contraction adds it up with the others: node perturbation lives on this.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graph/model.h"

namespace marketplace {

// An op of a market.
struct Link {
  int spec = 0, node = 0;
};

struct Chain {
  struct Stage {
    Link contraction;
    std::vector<Link> channelwise;  // in the order of the data
    Shape in, sum, out;             // of the contraction, its result, and what follows
    std::int64_t channels() const { return sum[0]; }
    std::int64_t pixels() const { return element_count(sum) / sum[0]; }
    std::int64_t out_pixels() const { return element_count(out) / sum[0]; }
  };
  std::vector<Link> entry;    // what precedes the first contraction
  std::vector<Stage> stages;  // the last ends in logits
};

// The chain of specs [first, end) for one sample's shape at spec `first`. Throws, naming the layer,
// where data branches, where an op behind the first contraction mixes channels or samples, where a
// convolution has groups, or where the market does not end in a linear layer.
Chain make_chain(const std::vector<std::shared_ptr<Model>>& models, int first, const Shape& shape);

// The first spec that node perturbation trains, for vendor counts: the first with more than one, or
// the last.
int first_trained(const std::vector<std::int64_t>& counts);

// Floating point operations of node perturbation on one sample: one forward pass, for each probe of
// a stage the ops that follow it and one evaluation of the rest of the market per channel, and the
// weights' gradients. Products count two a multiply-add; elementwise ops, which weigh here, eight
// an element of a contraction's result: about what a normalisation takes.
std::int64_t chain_flops(const std::vector<std::shared_ptr<Model>>& models,
                         const std::vector<std::int64_t>& counts, const Shape& input_shape);

// Some ops of a chain as a model of their own, with copies of their parameters and buffers.
class Slice {
 public:
  Slice(const std::vector<std::shared_ptr<Model>>& models, const std::vector<Link>& links);

  // A parameter or buffer of the slice, and where it lives in the market.
  struct Source {
    int spec = 0, id = 0;
  };
  Model& model() { return *model_; }
  const Model& model() const { return *model_; }
  const std::vector<Source>& sources() const { return sources_; }  // by the slice's parameter id
  void refresh(const std::vector<std::shared_ptr<Model>>& models);

 private:
  std::unique_ptr<Model> model_;
  std::vector<Source> sources_;
};

}  // namespace marketplace
