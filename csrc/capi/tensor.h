// Borrowed DLPack tensors at the door: checked once, never copied nor converted silently.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "capi/marketplace.h"

namespace marketplace::capi {

// x (B, *sample), uint8 or float32.
Batch borrow_batch(const mp_tensor* x, const char* op);
// Labels (batch,) of any integer dtype as int32.
std::vector<std::int32_t> read_labels(const mp_tensor* labels, std::int64_t batch, const char* op);
// float32 values of exactly this shape.
const float* borrow_values(const mp_tensor* values, const Shape& shape, const char* op);

}  // namespace marketplace::capi
