// What is wrong with a batch, in the same words whether the host or a device found it.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"

namespace marketplace {

[[noreturn]] inline void refuse_value(float value, std::int64_t sample, std::int64_t element) {
  fail("batch", "finite x",
       std::to_string(value) + " in sample " + std::to_string(sample) + " at element " +
           std::to_string(element));
}

[[noreturn]] inline void refuse_label(std::int64_t label, std::int64_t sample,
                                      std::int64_t classes) {
  fail("cross_entropy", "labels from 0 to " + std::to_string(classes - 1),
       std::to_string(label) + " at sample " + std::to_string(sample));
}

[[noreturn]] inline void refuse_only_ignored() {
  fail("cross_entropy", "a label other than ignore_index", "none");
}

}  // namespace marketplace
