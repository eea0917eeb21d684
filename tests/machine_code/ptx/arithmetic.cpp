// Sums, products and quotients.
#include <cfenv>

#include "operations.h"

namespace ptx {
namespace {

// Subnormal numbers to zeros of their sign.
float flush(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value) : value;
}

// What a division by zero gives is unspecified, but it must not stop the machine.
template <class T>
T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return a / b;
}

template <class T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return a % b;
}

template <class S>
void add_integers(Operations& operations, const std::string& bits) {
  using U = std::make_unsigned_t<S>;
  for (const std::string& type : {"s" + bits, "u" + bits}) {
    operations["add." + type] = binary<U>([](auto a, auto b) { return a + b; });
    operations["sub." + type] = binary<U>([](auto a, auto b) { return a - b; });
    operations["mul.lo." + type] =
        binary<U>([](auto a, auto b) { return static_cast<U>(1u * a * b); });
    operations["mad.lo." + type] =
        ternary<U, U>([](auto a, auto b, auto c) { return static_cast<U>(1u * a * b + c); });
  }
  operations["neg.s" + bits] = unary<U, U>([](auto a) { return 0 - a; });
  operations["abs.s" + bits] =
      unary<U, U>([](auto a) { return static_cast<S>(a) < 0 ? 0 - a : a; });
  operations["div.s" + bits] = binary<S>([](auto a, auto b) { return quotient<S>(a, b); });
  operations["div.u" + bits] = binary<U>([](auto a, auto b) { return quotient<U>(a, b); });
  operations["rem.s" + bits] = binary<S>([](auto a, auto b) { return remainder<S>(a, b); });
  operations["rem.u" + bits] = binary<U>([](auto a, auto b) { return remainder<U>(a, b); });
  operations["min.s" + bits] = binary<S>([](auto a, auto b) { return b < a ? b : a; });
  operations["min.u" + bits] = binary<U>([](auto a, auto b) { return b < a ? b : a; });
  operations["max.s" + bits] = binary<S>([](auto a, auto b) { return a < b ? b : a; });
  operations["max.u" + bits] = binary<U>([](auto a, auto b) { return a < b ? b : a; });
}

template <class Wide, class T>
void add_wide_products(Operations& operations, const std::string& type) {
  operations["mul.wide." + type] =
      mixed<Wide, T, T>([](auto a, auto b) { return static_cast<Wide>(a) * static_cast<Wide>(b); });
  operations["mad.wide." + type] = ternary<Wide, T>(
      [](auto a, auto b, auto c) { return static_cast<Wide>(a) * static_cast<Wide>(b) + c; });
}

template <class Wide, class T>
void add_high_products(Operations& operations, const std::string& type) {
  operations["mul.hi." + type] = binary<T>([](auto a, auto b) {
    return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b) >> (8 * sizeof(T)));
  });
}

template <class T>
void add_floats(Operations& operations, const std::string& type) {
  for (const char* rounding : {"", "rn."}) {
    operations["add." + (rounding + type)] = binary<T>([](auto a, auto b) { return a + b; });
    operations["sub." + (rounding + type)] = binary<T>([](auto a, auto b) { return a - b; });
    operations["mul." + (rounding + type)] = binary<T>([](auto a, auto b) { return a * b; });
  }
  operations["fma.rn." + type] =
      ternary<T, T>([](auto a, auto b, auto c) { return std::fma(a, b, c); });
  operations["div.rn." + type] = binary<T>([](auto a, auto b) { return a / b; });
  operations["rcp.rn." + type] = unary<T, T>([](auto a) { return canonical(T{1} / a); });
  operations["sqrt.rn." + type] = unary<T, T>([](auto a) { return canonical(std::sqrt(a)); });
  operations["neg." + type] = unary<T, T>([](auto a) { return -a; });
  operations["abs." + type] = unary<T, T>([](auto a) { return std::fabs(a); });
  operations["copysign." + type] =
      mixed<T, T, T>([](auto a, auto b) { return std::copysign(b, a); });
  // of a number and a NaN the number
  operations["min." + type] = binary<T>([](auto a, auto b) { return std::fmin(a, b); });
  operations["max." + type] = binary<T>([](auto a, auto b) { return std::fmax(a, b); });
}

const Operation kFma =
    ternary<float, float>([](auto a, auto b, auto c) { return std::fma(a, b, c); });

template <int kRounding>
void fma_rounded(Warp& warp, const Instruction& instruction) {
  std::fesetround(kRounding);
  kFma(warp, instruction);  // behind a pointer: its arithmetic stays between the two calls
  std::fesetround(FE_TONEAREST);
}

// Rounded results of the exact functions are within the errors that these may have.
void add_approximations(Operations& operations) {
  operations["ex2.approx.ftz.f32"] =
      unary<float, float>([](float a) { return canonical(flush(std::exp2(flush(a)))); });
  operations["ex2.approx.f32"] =
      unary<float, float>([](float a) { return canonical(std::exp2(a)); });
  operations["rcp.approx.ftz.f32"] =
      unary<float, float>([](float a) { return canonical(flush(1.0f / flush(a))); });
  operations["rsqrt.approx.f32"] = unary<float, float>(
      [](float a) { return canonical(static_cast<float>(1 / std::sqrt(double{a}))); });
  operations["sqrt.approx.f32"] =
      unary<float, float>([](float a) { return canonical(std::sqrt(a)); });
}

}  // namespace

void add_arithmetic(Operations& operations) {
  add_integers<std::int16_t>(operations, "16");
  add_integers<std::int32_t>(operations, "32");
  add_integers<std::int64_t>(operations, "64");
  add_wide_products<std::int32_t, std::int16_t>(operations, "s16");
  add_wide_products<std::uint32_t, std::uint16_t>(operations, "u16");
  add_wide_products<std::int64_t, std::int32_t>(operations, "s32");
  add_wide_products<std::uint64_t, std::uint32_t>(operations, "u32");
  add_high_products<std::int64_t, std::int32_t>(operations, "s32");
  add_high_products<std::uint64_t, std::uint32_t>(operations, "u32");
  add_high_products<__int128, std::int64_t>(operations, "s64");
  add_high_products<unsigned __int128, std::uint64_t>(operations, "u64");
  add_floats<float>(operations, "f32");
  add_floats<double>(operations, "f64");
  operations["fma.rm.f32"] = fma_rounded<FE_DOWNWARD>;
  operations["fma.rp.f32"] = fma_rounded<FE_UPWARD>;
  operations["fma.rz.f32"] = fma_rounded<FE_TOWARDZERO>;
  add_approximations(operations);
}

}  // namespace ptx
