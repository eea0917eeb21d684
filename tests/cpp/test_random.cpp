#include <doctest/doctest.h>

#include "core/error.h"
#include "core/threefry.h"
#include "cpu/isa.h"
#include "market/seeds.h"

using namespace marketplace;

TEST_CASE("threefry matches the known answers of its authors") {
  // Random123's kat_vectors: counter, key -> output of threefry2x32, 20 rounds
  RandomWords zero = threefry2x32(0, 0, 0);
  CHECK(zero.lane0 == 0x6b200159u);
  CHECK(zero.lane1 == 0x99ba4efeu);
  RandomWords ones = threefry2x32(~0ull, ~0u, ~0u);
  CHECK(ones.lane0 == 0x1cb996fcu);
  CHECK(ones.lane1 == 0xbb002be7u);
  RandomWords pi = threefry2x32(0x0370734413198a2eull, 0x243f6a88u, 0x85a308d3u);
  CHECK(pi.lane0 == 0xc4923a9cu);
  CHECK(pi.lane1 == 0x483df7a0u);
}

TEST_CASE("numbers lie in [0, 1) and deltas in [-a, a)") {
  CHECK(word_to_float(0) == 0.0f);
  CHECK(word_to_float(~0u) < 1.0f);
  CHECK(word_to_delta(0, 0.25f) == -0.25f);
  CHECK(word_to_delta(~0u, 0.25f) < 0.25f);
}

TEST_CASE("vectorised deltas equal the scalar ones across the counter's wrap-around") {
  const cpu::KernelTable& kernels = cpu::active_kernels();
  const std::int64_t n = 73, half = 37;  // the last block has one number alone
  const std::vector<float> zeros(n, 0.0f);
  std::vector<float> out(n);
  kernels.perturb(42, 0xFFFFFFF0u, 0.5f, zeros.data(), out.data(), n);
  for (std::int64_t j = 0; j < half; ++j) {
    const std::uint32_t c0 = 0xFFFFFFF0u + static_cast<std::uint32_t>(j);
    const RandomWords words = threefry2x32(42, c0, c0 + static_cast<std::uint32_t>(half));
    CHECK(out[j] == word_to_delta(words.lane0, 0.5f));
    if (half + j < n) CHECK(out[half + j] == word_to_delta(words.lane1, 0.5f));
  }
}

TEST_CASE("seeds are a pure function, nonzero except the leader's") {
  const auto seeds = derive_seeds(7, 3, 1, 1000, true);
  CHECK(seeds == derive_seeds(7, 3, 1, 1000, true));
  CHECK(seeds[0] == 0);
  for (std::size_t v = 1; v < seeds.size(); ++v) CHECK(seeds[v] != 0);
  CHECK(seeds[1] != derive_seeds(7, 4, 1, 1000, true)[1]);
  CHECK(seeds[1] != derive_seeds(7, 3, 2, 1000, true)[1]);
  CHECK(seeds[1] != derive_seeds(8, 3, 1, 1000, true)[1]);
  CHECK(derive_seeds(7, 3, 1, 5, false)[0] != 0);
}

TEST_CASE("sampled upstreams are distinct and within range") {
  const auto rows = sample_upstream(1, 2, 3, 50, 9, 4);
  REQUIRE(rows.size() == 200);
  for (int v = 0; v < 50; ++v)
    for (int i = 0; i < 4; ++i) {
      CHECK(rows[v * 4 + i] >= 0);
      CHECK(rows[v * 4 + i] < 9);
      for (int j = 0; j < i; ++j) CHECK(rows[v * 4 + i] != rows[v * 4 + j]);
    }
  CHECK_THROWS_WITH_AS(sample_upstream(1, 2, 3, 2, 9, 10),
                       doctest::Contains("upstream_sampling: expected 1 to 9"), Error);
}
