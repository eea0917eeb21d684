// Normalisations and means against float64, on lines and channels around the lengths of vectors.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "cpu/isa.h"

namespace marketplace::cpu {
namespace {

constexpr float kEps = 1e-5f;

// Exactly as many elements as asked for, so that one more is an error under the sanitizers.
std::unique_ptr<float[]> normal(std::int64_t count, float shift = 0.5f) {
  std::unique_ptr<float[]> values(new float[count]);
  std::mt19937 random(7);
  std::normal_distribution<float> draw(shift, 1);
  for (std::int64_t i = 0; i < count; ++i) values[i] = draw(random);
  return values;
}

// The furthest that `y` is from x normalised over `count` elements `step` apart.
double norm_error(const float* x, const float* y, std::int64_t count, std::int64_t step) {
  double mean = 0, variance = 0, worst = 0;
  for (std::int64_t i = 0; i < count; ++i) mean += x[i * step];
  mean /= static_cast<double>(count);
  for (std::int64_t i = 0; i < count; ++i) variance += (x[i * step] - mean) * (x[i * step] - mean);
  variance /= static_cast<double>(count);
  for (std::int64_t i = 0; i < count; ++i) {
    const double right = (x[i * step] - mean) / std::sqrt(variance + kEps);
    worst = std::max(worst, std::fabs(y[i * step] - right));
  }
  return worst;
}

double mean_of(const float* x, std::int64_t count, std::int64_t step) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i * step];
  return sum / static_cast<double>(count);
}

}  // namespace

TEST_CASE("layer norm: lines of any length") {
  for (const std::int64_t count :
       {1, 3, 4, 15, 16, 17, 31, 33, 63, 64, 65, 66, 100, 127, 1000, 4099}) {
    CAPTURE(count);
    const auto x = normal(2 * count), y = normal(2 * count);
    NormArgs args{};
    args.in = x.get();
    args.out = y.get();
    args.eps = kEps;
    args.groups = 2;
    args.channels = count;
    active_kernels().float32.layer_norm(args);
    for (const std::int64_t first : {std::int64_t{0}, count})
      CHECK(norm_error(x.get() + first, y.get() + first, count, 1) < 2e-6);
  }
}

TEST_CASE("channel norm: any number of channels") {
  constexpr std::int64_t kRows = 70;
  for (std::int64_t channels = 1; channels <= 35; ++channels) {
    CAPTURE(channels);
    const auto x = normal(kRows * channels), y = normal(kRows * channels);
    const auto mean = normal(channels), variance = normal(channels);
    NormArgs args{};
    args.in = x.get();
    args.out = y.get();
    args.eps = kEps;
    args.groups = 1;
    args.rows = kRows;
    args.channels = channels;
    args.mean = mean.get();
    args.variance = variance.get();
    active_kernels().float32.channel_norm(args);
    for (std::int64_t c = 0; c < channels; ++c)
      CHECK(norm_error(x.get() + c, y.get() + c, kRows, channels) < 2e-6);
  }
}

TEST_CASE("mean: axes anywhere") {
  for (const std::int64_t axis : {1, 7, 8, 9, 50, 1003})
    for (const std::int64_t inner : {1, 2, 3, 4, 5, 15, 16, 17, 23, 40}) {
      CAPTURE(axis);
      CAPTURE(inner);
      const auto x = normal(2 * axis * inner), y = normal(2 * inner);
      active_kernels().float32.mean(x.get(), y.get(), 2, axis, inner);
      for (std::int64_t o = 0; o < 2; ++o)
        for (std::int64_t i = 0; i < inner; ++i) {
          const double right = mean_of(x.get() + o * axis * inner + i, axis, inner);
          CHECK(y[o * inner + i] == static_cast<float>(right));  // summed in float64
        }
    }
}

}  // namespace marketplace::cpu
