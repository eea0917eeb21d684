// Losses of logits that are on the host; backends compute those of a probe on the way.
#pragma once

#include <cstdint>

#include "backend.h"

namespace marketplace {

// losses[i] = log(sum exp(logits[i])) - logits[i][label], 0 where the label is the ignored one.
// logits (rows, classes), losses (rows,), labels as many. Float64 within a row.
void cross_entropy(const float* logits, std::int64_t rows, std::int64_t classes,
                   const Labels& labels, float* losses);

}  // namespace marketplace
