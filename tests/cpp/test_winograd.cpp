// Which tiles a convolution is filtered in.
#include <doctest/doctest.h>

#include "cpu/isa.h"
#include "cpu/winograd.h"

using namespace marketplace;
using namespace marketplace::cpu;

namespace {

// Of `channels` to as many, without padding, on a square image.
int outputs_of(std::int64_t kernel, std::int64_t channels, std::int64_t size,
               DType dtype = DType::float32) {
  Op op;
  op.kind = OpKind::conv2d;
  op.window.kernel[0] = op.window.kernel[1] = kernel;
  const Shape in{channels, size, size}, out{channels, size - kernel + 1, size - kernel + 1};
  return winograd_outputs(op, in, out, dtype, active_kernels());
}

}  // namespace

TEST_CASE("tiles are those that waste least") {
  CHECK(outputs_of(3, 64, 10) == 4);   // 8 x 8 results are 4 tiles
  CHECK(outputs_of(3, 64, 8) == 3);    // 6 x 6 results are 4 tiles, of smaller inputs
  CHECK(outputs_of(3, 256, 10) == 2);  // larger panels would leave the cache
  CHECK(outputs_of(5, 32, 24) == 2);
  CHECK(outputs_of(7, 64, 24) == 0);
  CHECK(outputs_of(3, 16, 10) == 0);
}

TEST_CASE("bfloat16 is filtered in inputs of 4 x 4 alone, or not at all") {
  const int outputs = multiplies_tiles(active_kernels(), DType::bfloat16) ? 0 : 2;
  for (const std::int64_t size : {8, 10, 18}) {
    CHECK(outputs_of(3, 64, size, DType::bfloat16) == outputs);
    CHECK(outputs_of(5, 64, size, DType::bfloat16) == 0);
  }
}
