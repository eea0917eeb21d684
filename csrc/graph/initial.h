// First values of a model's parameters.
#pragma once

#include <cstdint>

#include "graph/model.h"

namespace marketplace {

// conv2d, linear: weight and bias uniform(-b, b), b = 1 / sqrt(fan in), drawn in the order of the
// ops, each tensor from counter on; norms: weight 1, bias 0, running statistics 0 and 1. counter:
// moves behind what was drawn, so that a market's models share one stream.
void set_initial_values(Model& model, std::uint64_t seed, std::uint32_t& counter);

}  // namespace marketplace
