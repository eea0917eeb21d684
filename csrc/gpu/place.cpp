// Small parts of a program: where its intermediates lie while one chunk runs (first fit over live
// ranges), what its activations are called.
#include <algorithm>

#include "gpu/program.h"

namespace marketplace::gpu {
namespace {

constexpr std::int64_t kAlignBytes = 256;

std::int64_t slot_bytes(const Slot& slot, DType dtype, std::int64_t rows, std::int64_t samples) {
  return (slot.size * rows * samples * (slot.floats ? 4 : size_bytes(dtype)) + kAlignBytes - 1) /
         kAlignBytes * kAlignBytes;
}

}  // namespace

Places place_slots(const Program& program, DType dtype, std::int64_t rows, std::int64_t parents,
                   std::int64_t samples) {
  const auto count = static_cast<int>(program.slots.size());
  Places places;
  places.offset.assign(count, 0);
  std::vector<std::int64_t> bytes(count, 0);
  for (int s = kInputSlot + 1; s < count; ++s) {
    if (s == program.output_slot) continue;
    const Slot& slot = program.slots[s];
    bytes[s] = slot_bytes(slot, dtype, slot.shared ? parents : rows, samples);
    for (bool moved = true; moved;) {
      moved = false;
      for (int o = kInputSlot + 1; o < s; ++o) {
        const Slot& other = program.slots[o];
        if (o == program.output_slot || other.last < slot.first || other.first > slot.last)
          continue;
        if (places.offset[s] < places.offset[o] + bytes[o] &&
            places.offset[o] < places.offset[s] + bytes[s]) {
          places.offset[s] = places.offset[o] + bytes[o];
          moved = true;
        }
      }
    }
    places.bytes = std::max(places.bytes, places.offset[s] + bytes[s]);
  }
  return places;
}

Activation activation_of(UnaryKind kind) {
  switch (kind) {
    case UnaryKind::relu: return Activation::relu;
    case UnaryKind::gelu: return Activation::gelu;
    case UnaryKind::gelu_tanh: return Activation::gelu_tanh;
    case UnaryKind::sigmoid: return Activation::sigmoid;
    case UnaryKind::tanh: return Activation::tanh;
  }
  return Activation::none;
}

}  // namespace marketplace::gpu
