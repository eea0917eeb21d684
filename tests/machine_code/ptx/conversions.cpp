// cvt, cvta.
#include <cstring>

#include "operations.h"

namespace ptx {
namespace {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

u16 to_bfloat16(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  if (value != value) return 0x7FFF;
  return static_cast<u16>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);  // ties to even
}

// 10 bits of mantissa, ties away from zero.
u32 to_tf32(float value) {
  const u32 bits = std::bit_cast<u32>(value);
  if (value != value) return 0x7FFFFFFFu;
  if ((bits & 0x7F800000u) == 0x7F800000u) return bits;
  return (bits + 0x1000u) & ~0x1FFFu;
}

float saturate(float value) {
  if (!(value > 0.0f)) return 0.0f;  // NaN too
  return value < 1.0f ? value : 1.0f;
}

void to_bfloat16_pair(Warp& warp, const Instruction& instruction) {
  u32* to = warp.lanes<u32>(instruction, 0);
  const float *high = warp.lanes<float>(instruction, 1), *low = warp.lanes<float>(instruction, 2);
  each_lane(warp.active, [=](int lane) {
    to[lane] = static_cast<u32>(to_bfloat16(high[lane])) << 16 | to_bfloat16(low[lane]);
  });
}

// Integers in registers wider than their types: `size` bytes of the source count, `count` of the
// result, whose sign is extended over the register (number) as the source's is (is_signed).
u64 extend(u64 value, int bytes, bool is_signed) {
  const int unused = 64 - 8 * bytes;
  const u64 up = value << unused;
  return is_signed ? static_cast<u64>(static_cast<std::int64_t>(up) >> unused) : up >> unused;
}

void convert_any_integer(Warp& warp, const Instruction& instruction) {
  const int from_width = instruction.widths[1], to_width = instruction.widths[0];
  each_lane(warp.active, [&](int lane) {
    u64 value = 0;
    std::memcpy(&value, warp.frame + instruction.offsets[1] + lane * from_width, from_width);
    value = extend(value, instruction.size, instruction.is_signed != 0);
    value = extend(value, instruction.count, instruction.number != 0);
    std::memcpy(warp.frame + instruction.offsets[0] + lane * to_width, &value, to_width);
  });
}

template <class From>
void add_from_integer(Operations& operations, const std::string& from) {
  operations["cvt.u16." + from] = operations["cvt.s16." + from] =
      unary<u16, From>([](auto a) { return a; });
  operations["cvt.u32." + from] = operations["cvt.s32." + from] =
      unary<u32, From>([](auto a) { return a; });
  operations["cvt.u64." + from] = operations["cvt.s64." + from] =
      unary<u64, From>([](auto a) { return a; });
  operations["cvt.rn.f32." + from] =
      unary<float, From>([](auto a) { return static_cast<float>(a); });
  operations["cvt.rn.f64." + from] =
      unary<double, From>([](auto a) { return static_cast<double>(a); });
}

// Towards zero; what does not fit gives the nearest that does, NaN zero.
template <class To, class From>
To truncated(From value) {
  if (value != value) return 0;
  const From whole = std::trunc(value);
  if (whole < static_cast<From>(std::numeric_limits<To>::min()))
    return std::numeric_limits<To>::min();
  if (whole >= std::ldexp(From{1}, std::numeric_limits<To>::digits))
    return std::numeric_limits<To>::max();
  return static_cast<To>(whole);
}

template <class From>
void add_from_float(Operations& operations, const std::string& from) {
  using s32 = std::int32_t;
  using s64 = std::int64_t;
  operations["cvt.rzi.s32." + from] = unary<s32, From>([](From a) { return truncated<s32>(a); });
  operations["cvt.rzi.u32." + from] = unary<u32, From>([](From a) { return truncated<u32>(a); });
  operations["cvt.rzi.s64." + from] = unary<s64, From>([](From a) { return truncated<s64>(a); });
  operations["cvt.rzi.u64." + from] = unary<u64, From>([](From a) { return truncated<u64>(a); });
  operations["cvt.rni." + from + "." + from] =
      unary<From, From>([](From a) { return canonical(std::nearbyint(a)); });
  operations["cvt.rzi." + from + "." + from] =
      unary<From, From>([](From a) { return canonical(std::trunc(a)); });
}

}  // namespace

void add_conversions(Operations& operations) {
  add_from_integer<u16>(operations, "u16");
  add_from_integer<std::int16_t>(operations, "s16");
  add_from_integer<u32>(operations, "u32");
  add_from_integer<std::int32_t>(operations, "s32");
  add_from_integer<u64>(operations, "u64");
  add_from_integer<std::int64_t>(operations, "s64");
  operations["cvt.integer"] = convert_any_integer;
  add_from_float<float>(operations, "f32");
  add_from_float<double>(operations, "f64");
  operations["cvt.f64.f32"] = unary<double, float>([](float a) { return a; });
  operations["cvt.rn.f32.f64"] =
      unary<float, double>([](double a) { return canonical(static_cast<float>(a)); });
  operations["cvt.sat.f32.f32"] = unary<float, float>([](float a) { return saturate(a); });
  operations["cvt.rn.bf16.f32"] = unary<u16, float>([](float a) { return to_bfloat16(a); });
  operations["cvt.rn.bf16x2.f32"] = to_bfloat16_pair;
  operations["cvt.rna.tf32.f32"] = unary<u32, float>([](float a) { return to_tf32(a); });
  // global memory is where generic addresses say
  operations["cvta.to.global.u64"] = unary<u64, u64>([](u64 a) { return a; });
}

}  // namespace ptx
