// The k smallest or largest values of a row; ties go to the lower index, NaN sorts last either way.
#pragma once

#include <cstdint>
#include <vector>

namespace marketplace {

// Indices (k,) into values (n,).
std::vector<std::int64_t> topk(const double* values, std::int64_t n, std::int64_t k, bool largest);
// The index of the lowest of at least one.
std::int64_t lowest(const std::vector<float>& values);

}  // namespace marketplace
