// Losses of samples against float64, above all small ones: their ranking is what training goes by.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cpu/isa.h"

namespace marketplace::cpu {
namespace {

constexpr float kUnbounded = std::numeric_limits<float>::infinity();
// Either side of a vector, and of where rows are no longer turned.
constexpr std::int64_t kClasses[] = {1,  2,  3,  4,  7,  8,  9,   15,  16,  17,  33,
                                     63, 64, 65, 66, 79, 80, 100, 127, 128, 129, 1000};

double exact_loss(const float* x, std::int64_t classes, std::int32_t label) {
  const float* largest = std::max_element(x, x + classes);
  double rest = 0;
  for (const float* each = x; each < x + classes; ++each)
    if (each != largest) rest += std::exp(static_cast<double>(*each) - *largest);
  return std::log1p(rest) + (static_cast<double>(*largest) - x[label]);
}

double relative_error(double loss, double right) {
  return loss == right ? 0 : std::fabs(loss - right) / right;
}

std::vector<double> losses_of(const std::vector<float>& logits, std::int64_t classes,
                              const std::vector<std::int32_t>& labels) {
  const auto samples = static_cast<std::int64_t>(labels.size());
  const std::unique_ptr<float[]> rows(new float[logits.size()]);  // sanitizers see one more
  std::copy(logits.begin(), logits.end(), rows.get());
  std::vector<double> losses(labels.size());
  active_kernels().cross_entropy(
      {rows.get(), classes, samples, classes, labels.data(), false, 0, losses.data()});
  return losses;
}

double loss_of(const std::vector<float>& logits, std::int32_t label) {
  return losses_of(logits, static_cast<std::int64_t>(logits.size()), {label})[0];
}

}  // namespace

TEST_CASE("cross-entropy: small losses keep their digits") {
  for (const std::int64_t classes : kClasses)
    for (const float gap : {0.0f, 1e-3f, 0.4f, 0.9f, 3.0f, 8.0f, 12.0f, 17.0f, 30.0f, 80.0f}) {
      std::vector<float> x(classes, 2 - gap);
      const auto label = static_cast<std::int32_t>(classes / 2);
      x[label] = 2;
      CAPTURE(classes);
      CAPTURE(gap);
      CHECK(relative_error(loss_of(x, label), exact_loss(x.data(), classes, label)) < 2e-6);
      CHECK(relative_error(loss_of(x, 0), exact_loss(x.data(), classes, 0)) < 2e-6);
    }
}

TEST_CASE("cross-entropy: any logits, the largest among them several times") {
  std::mt19937 random(1);
  for (const std::int64_t classes : kClasses)
    for (const std::int64_t samples : {1, 3, 16, 17}) {
      std::normal_distribution<float> draw(0, 5);
      std::vector<float> x(samples * classes);
      for (float& value : x) value = draw(random);
      for (std::int64_t s = 0; s < samples; s += 2) {
        float* row = x.data() + s * classes;
        row[0] = row[classes - 1] = *std::max_element(row, row + classes);
      }
      std::vector<std::int32_t> labels(samples);
      for (auto& label : labels) label = static_cast<std::int32_t>(random() % classes);
      const std::vector<double> losses = losses_of(x, classes, labels);
      for (std::int64_t s = 0; s < samples; ++s) {
        CAPTURE(classes);
        CAPTURE(s);
        const float* row = x.data() + s * classes;
        CHECK(relative_error(losses[s], exact_loss(row, classes, labels[s])) < 1e-6);
        CHECK(losses[s] == loss_of({row, row + classes}, labels[s]));  // whatever its neighbours
      }
    }
}

TEST_CASE("cross-entropy: no logit that is not a number is lost, and no infinite one is a zero") {
  for (const std::int64_t classes : {2, 5, 16, 64, 65, 96, 100})
    for (const std::int64_t at : {std::int64_t{0}, classes / 2, classes - 1}) {
      CAPTURE(classes);
      CAPTURE(at);
      std::vector<float> x(classes, 1.0f);
      for (const float bad : {std::nanf(""), kUnbounded}) {
        x[at] = bad;
        CHECK(std::isnan(loss_of(x, 0)));
        CHECK(std::isnan(loss_of(x, static_cast<std::int32_t>(at))));
      }
      x[at] = -kUnbounded;
      CHECK(loss_of(x, static_cast<std::int32_t>(at)) == kUnbounded);
      CHECK(loss_of(x, at == 0 ? 1 : 0) ==
            doctest::Approx(std::log(static_cast<double>(classes - 1))).epsilon(1e-6));
      CHECK(std::isnan(loss_of(std::vector<float>(classes, -kUnbounded), 0)));
    }
}

}  // namespace marketplace::cpu
