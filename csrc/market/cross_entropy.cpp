#include "market/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace marketplace {
namespace {

float row_loss(const float* x, std::int64_t classes, std::int32_t label) {
  const float largest = *std::max_element(x, x + classes);
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(x[c]) - largest);
  return static_cast<float>(std::log(sum) + (static_cast<double>(largest) - x[label]));
}

}  // namespace

void cross_entropy(const float* logits, std::int64_t rows, std::int64_t classes,
                   const Labels& labels, float* losses) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int32_t label = labels.data[i];
    const bool ignored = labels.ignore_index == label;
    if (!ignored && (label < 0 || label >= classes))
      fail("cross_entropy", "labels from 0 to " + std::to_string(classes - 1),
           std::to_string(label) + " at sample " + std::to_string(i));
    losses[i] = ignored ? 0.0f : row_loss(logits + i * classes, classes, label);
  }
}

}  // namespace marketplace
