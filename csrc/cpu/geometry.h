// Where the elements of a layer lie in memory: the lowering's arithmetic.
#pragma once

#include "cpu/program.h"

namespace marketplace::cpu {

// A convolution over a channels-last image of `width` columns and `channels`, padding included.
Contraction conv_contraction(const Op& op, std::int64_t width, std::int64_t channels,
                             const Shape& out);

// weight (O, C); results: elements of one sample's result; layout: of the C input elements.
Contraction linear_contraction(const Shape& weight, std::int64_t results, Layout layout);

PoolArgs pool_args(const Op& op, const Shape& in, const Shape& out);

// Places every intermediate in scratch, first fit over live ranges.
void place_slots(Program& program);

}  // namespace marketplace::cpu
