// Activations against float64, in units in the last place of the true result.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/isa.h"

namespace marketplace::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Unary kCurves[] = {Unary::gelu, Unary::gelu_tanh, Unary::sigmoid, Unary::tanh};

double truth(Unary kind, double x) {
  switch (kind) {
    case Unary::relu: return x < 0 ? 0 : x;
    case Unary::gelu: return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    case Unary::gelu_tanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Unary::sigmoid: return 1 / (1 + std::exp(-x));
    case Unary::tanh: return std::tanh(x);
  }
  return 0;
}

// The distance of neighbouring float32 numbers around x.
double unit(double x) {
  const float size = std::fabs(static_cast<float>(x));
  return static_cast<double>(std::nextafter(size, kInfinity)) - size;
}

std::vector<float> apply(Unary kind, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  active_kernels().float32.unary(kind, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  return y;
}

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Both signs of numbers of every size, denormal ones too, up to `most`.
std::vector<float> sweep(float most) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; from_bits(bits) < most; bits += bits < 0x3A000000u ? 99991u : 7919u)
    for (const float sign : {1.0f, -1.0f}) values.push_back(sign * from_bits(bits));
  return values;
}

double worst_error(Unary kind, const std::vector<float>& x) {
  const std::vector<float> y = apply(kind, x);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double right = truth(kind, x[i]);
    const double error = std::fabs(y[i] - right) / unit(right);
    if (!(error <= worst)) worst = error;  // or NaN
  }
  return worst;
}

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

}  // namespace

TEST_CASE("activations: a few units in the last place, also where they have all but vanished") {
  CHECK(worst_error(Unary::sigmoid, sweep(110)) < 3);
  CHECK(worst_error(Unary::tanh, sweep(110)) < 3);
  CHECK(worst_error(Unary::gelu, sweep(12.9f)) < 5);  // beyond, results are denormal or nearly
  CHECK(worst_error(Unary::gelu, sweep(100)) < 16);
  CHECK(worst_error(Unary::gelu_tanh, sweep(1)) < 5);
  CHECK(worst_error(Unary::gelu_tanh, sweep(2)) < 8);
  CHECK(worst_error(Unary::gelu_tanh, sweep(6)) < 64);
  CHECK(worst_error(Unary::gelu_tanh, sweep(100)) < 256);
}

TEST_CASE("activations: infinities, numbers that are none and zeros of both signs") {
  for (const Unary kind : kCurves) {
    const std::vector<float> y =
        apply(kind, {kInfinity, kNan, -kNan, 3e38f, from_bits(0xFFFFFFFFu)});
    const bool unbounded = kind == Unary::gelu || kind == Unary::gelu_tanh;
    CHECK(y[0] == (unbounded ? kInfinity : 1.0f));
    CHECK(std::isnan(y[1]));
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == (unbounded ? 3e38f : 1.0f));
    CHECK(std::isnan(y[4]));
  }
  CHECK(apply(Unary::sigmoid, {-kInfinity, -3e38f, -0.0f}) == std::vector<float>{0, 0, 0.5f});
  CHECK(apply(Unary::tanh, {-kInfinity, -3e38f}) == std::vector<float>{-1, -1});
  for (const Unary kind : {Unary::gelu, Unary::gelu_tanh}) {
    CHECK(std::isnan(apply(kind, {-kInfinity})[0]));  // -inf * 0, as by the formula
    CHECK(apply(kind, {-3e38f})[0] == 0);
  }
  for (const Unary kind : {Unary::gelu, Unary::gelu_tanh, Unary::tanh}) {
    CHECK(bits_of(apply(kind, {0.0f})[0]) == 0);
    CHECK(bits_of(apply(kind, {-0.0f})[0]) == 0x80000000u);
  }
}

TEST_CASE_TEMPLATE("activations: an element's bits do not depend on its neighbours", T, float,
                   std::uint16_t) {
  const KernelTable& kernels = active_kernels();
  const TypedKernels& typed = sizeof(T) == 4 ? kernels.float32 : kernels.bfloat16;
  const std::vector<float> values = sweep(20);
  std::vector<T> x(67), y(67);
  const auto count = static_cast<std::int64_t>(x.size());
  for (std::int64_t i = 0; i < count; ++i) {  // a bfloat16 number is a float32's upper half
    const std::uint32_t bits =
        bits_of(values[(static_cast<std::size_t>(i) * 7919) % values.size()]);
    const std::uint32_t kept = sizeof(T) == 4 ? bits : bits >> 16;
    std::memcpy(&x[i], &kept, sizeof(T));
  }
  for (const Unary kind : kCurves) {
    typed.unary(kind, x.data(), y.data(), count);
    for (std::int64_t few = 1; few <= 33; ++few) {
      const std::unique_ptr<T[]> in(new T[few]), out(new T[few]);  // sanitizers see one more
      std::memcpy(in.get(), x.data() + count - few, sizeof(T) * few);
      typed.unary(kind, in.get(), out.get(), few);
      CHECK(std::memcmp(out.get(), y.data() + count - few, sizeof(T) * few) == 0);
    }
  }
}

}  // namespace marketplace::cpu
