// Moves, selections, shifts and logic.
#include <cstring>

#include "operations.h"

namespace ptx {
namespace {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

template <class T>
void select(Warp& warp, const Instruction& instruction) {
  T* to = warp.lanes<T>(instruction, 0);
  const T *a = warp.lanes<T>(instruction, 1), *b = warp.lanes<T>(instruction, 2);
  const u32 chosen = warp.predicate(instruction, 3);
  each_lane(warp.active, [=](int lane) { to[lane] = chosen >> lane & 1 ? a[lane] : b[lane]; });
}

// The low `length` bits of a, put into b at `position`.
template <class T>
T insert(T a, T b, u32 position, u32 length) {
  position &= 0xFF, length &= 0xFF;
  constexpr u32 kBits = 8 * sizeof(T);
  if (length == 0 || position >= kBits) return b;
  const T mask = (length >= kBits ? ~T{0} : (T{1} << length) - 1) << position;
  return (b & ~mask) | (a << position & mask);
}

template <class T>
void bit_field_insert(Warp& warp, const Instruction& instruction) {
  T* to = warp.lanes<T>(instruction, 0);
  const T *a = warp.lanes<T>(instruction, 1), *b = warp.lanes<T>(instruction, 2);
  const u32 *position = warp.lanes<u32>(instruction, 3), *length = warp.lanes<u32>(instruction, 4);
  each_lane(warp.active,
            [=](int lane) { to[lane] = insert(a[lane], b[lane], position[lane], length[lane]); });
}

// The bits of the pair (b, a) from `shift` below b's lowest, b the upper half.
void funnel_shift_left(Warp& warp, const Instruction& instruction) {
  u32* to = warp.lanes<u32>(instruction, 0);
  const u32 *a = warp.lanes<u32>(instruction, 1), *b = warp.lanes<u32>(instruction, 2);
  const u32* shift = warp.lanes<u32>(instruction, 3);
  each_lane(warp.active, [=](int lane) {
    const u64 pair = static_cast<u64>(b[lane]) << 32 | a[lane];
    to[lane] = static_cast<u32>(pair << (shift[lane] & 31) >> 32);
  });
}

void funnel_shift_right(Warp& warp, const Instruction& instruction) {
  u32* to = warp.lanes<u32>(instruction, 0);
  const u32 *a = warp.lanes<u32>(instruction, 1), *b = warp.lanes<u32>(instruction, 2);
  const u32* shift = warp.lanes<u32>(instruction, 3);
  each_lane(warp.active, [=](int lane) {
    const u64 pair = static_cast<u64>(b[lane]) << 32 | a[lane];
    to[lane] = static_cast<u32>(pair >> (shift[lane] & 31));
  });
}

// Bytes of the pair (b, a), each by a number of 4 bits, whose highest repeats the byte's sign.
u32 permute(u32 a, u32 b, u32 numbers) {
  const u64 pair = static_cast<u64>(b) << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 number = numbers >> (4 * i) & 15;
    u32 byte = static_cast<u32>(pair >> (8 * (number & 7))) & 0xFF;
    if (number & 8) byte = byte & 0x80 ? 0xFF : 0;
    result |= byte << (8 * i);
  }
  return result;
}

u32 any_logic(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 i = 0; i < 8; ++i)
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return result;
}

void logic3(Warp& warp, const Instruction& instruction) {
  u32* to = warp.lanes<u32>(instruction, 0);
  const u32 *a = warp.lanes<u32>(instruction, 1), *b = warp.lanes<u32>(instruction, 2);
  const u32 *c = warp.lanes<u32>(instruction, 3), *table = warp.lanes<u32>(instruction, 4);
  each_lane(warp.active, [=](int l) { to[l] = any_logic(a[l], b[l], c[l], table[l]); });
}

template <class U>
void add_width(Operations& operations, const std::string& bits) {
  using S = std::make_signed_t<U>;
  constexpr u32 kBits = 8 * sizeof(U);
  for (const std::string& type : {"b" + bits, "u" + bits, "s" + bits, "f" + bits}) {
    operations["mov." + type] = unary<U, U>([](U a) { return a; });
    operations["selp." + type] = select<U>;
  }
  operations["not.b" + bits] = unary<U, U>([](U a) { return ~a; });
  operations["and.b" + bits] = binary<U>([](U a, U b) { return a & b; });
  operations["or.b" + bits] = binary<U>([](U a, U b) { return a | b; });
  operations["xor.b" + bits] = binary<U>([](U a, U b) { return a ^ b; });
  operations["shl.b" + bits] =
      mixed<U, U, u32>([](U a, u32 b) { return b >= kBits ? U{0} : static_cast<U>(a << b); });
  for (const std::string& type : {"b" + bits, "u" + bits})
    operations["shr." + type] =
        mixed<U, U, u32>([](U a, u32 b) { return b >= kBits ? U{0} : static_cast<U>(a >> b); });
  operations["shr.s" + bits] = mixed<S, S, u32>(
      [](S a, u32 b) { return static_cast<S>(a >> (b >= kBits ? kBits - 1 : b)); });
}

// One value of its parts, the lowest first. The instruction's operands: the value, the parts.
void pack(Warp& warp, const Instruction& instruction) {
  each_lane(warp.active, [&](int lane) {
    std::byte* to = warp.frame + instruction.offsets[0] + lane * instruction.widths[0];
    for (int i = 0; i < instruction.count; ++i, to += instruction.size)
      std::memcpy(to, warp.frame + instruction.offsets[1 + i] + lane * instruction.size,
                  instruction.size);
  });
}

void unpack(Warp& warp, const Instruction& instruction) {
  each_lane(warp.active, [&](int lane) {
    const std::byte* from = warp.frame + instruction.offsets[0] + lane * instruction.widths[0];
    for (int i = 0; i < instruction.count; ++i, from += instruction.size)
      if (instruction.offsets[1 + i] >= 0)
        std::memcpy(warp.frame + instruction.offsets[1 + i] + lane * instruction.size, from,
                    instruction.size);
  });
}

template <class F>
Operation of_predicates(F) {
  return [](Warp& warp, const Instruction& instruction) {
    const u32 a = warp.predicate(instruction, 1);
    const u32 b = instruction.offsets[2] < 0 ? 0 : warp.predicate(instruction, 2);
    set_predicate(warp, warp.predicate(instruction, 0), F{}(a, b));
  };
}

void add_predicates(Operations& operations) {
  operations["mov.pred"] = of_predicates([](u32 a, u32) { return a; });
  operations["not.pred"] = of_predicates([](u32 a, u32) { return ~a; });
  operations["and.pred"] = of_predicates([](u32 a, u32 b) { return a & b; });
  operations["or.pred"] = of_predicates([](u32 a, u32 b) { return a | b; });
  operations["xor.pred"] = of_predicates([](u32 a, u32 b) { return a ^ b; });
}

}  // namespace

void add_bits(Operations& operations) {
  add_width<u16>(operations, "16");
  add_width<u32>(operations, "32");
  add_width<u64>(operations, "64");
  add_predicates(operations);
  operations["mov.pack"] = pack;
  operations["mov.unpack"] = unpack;
  operations["bfi.b32"] = bit_field_insert<u32>;
  operations["bfi.b64"] = bit_field_insert<u64>;
  operations["shf.l.wrap.b32"] = funnel_shift_left;
  operations["shf.r.wrap.b32"] = funnel_shift_right;
  operations["prmt.b32"] = ternary<u32, u32>([](u32 a, u32 b, u32 c) { return permute(a, b, c); });
  operations["lop3.b32"] = logic3;
  operations["popc.b32"] = unary<u32, u32>([](u32 a) { return std::popcount(a); });
  operations["clz.b32"] = unary<u32, u32>([](u32 a) { return std::countl_zero(a); });
}

}  // namespace ptx
