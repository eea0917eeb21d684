#include "cpu/geometry.h"

#include <algorithm>

namespace marketplace::cpu {
namespace {

constexpr std::int64_t kAlignElements = 32;

}  // namespace

// Steps run over (kh, kw, c); where pixels of a kernel row are neighbours in memory, one run holds
// the whole row. Weights come in the order (c, kh, kw).
Contraction conv_contraction(const Op& op, std::int64_t width, std::int64_t channels,
                             const Shape& out) {
  const Window& w = op.window;
  const std::int64_t each = channels / op.groups;
  const bool whole_row = op.groups == 1 && w.dilation[1] == 1;
  Contraction c;
  for (std::int64_t h = 0; h < out[1]; ++h)
    for (std::int64_t x = 0; x < out[2]; ++x)
      c.row_offset.push_back((h * w.stride[0] * width + x * w.stride[1]) * channels);
  c.run_length = whole_row ? w.kernel[1] * each : each;
  for (std::int64_t kh = 0; kh < w.kernel[0]; ++kh)
    for (std::int64_t kw = 0; kw < (whole_row ? 1 : w.kernel[1]); ++kw)
      c.run_offset.push_back((kh * w.dilation[0] * width + kw * w.dilation[1]) * channels);
  for (std::int64_t i = 0; i < each; ++i)
    for (std::int64_t pixel = 0; pixel < w.kernel[0] * w.kernel[1]; ++pixel)
      c.target.push_back(pixel * each + i);
  c.groups = op.groups;
  c.columns = out[0] / op.groups;
  c.group_input = each;
  c.line = out[2];
  c.line_step = w.stride[1] * channels;
  return c;
}

Contraction linear_contraction(const Shape& weight, std::int64_t results, Layout layout) {
  Contraction c;
  for (std::int64_t r = 0; r < results / weight[0]; ++r) c.row_offset.push_back(r * weight[1]);
  c.run_offset = {0};
  c.run_length = weight[1];
  for (std::int64_t k = 0; k < weight[1]; ++k)
    c.target.push_back(layout.planar() ? k
                                       : k % layout.pixels * layout.channels + k / layout.pixels);
  c.columns = weight[0];
  c.line = results / weight[0];
  c.line_step = weight[1];
  return c;
}

PoolArgs pool_args(const Op& op, const Shape& in, const Shape& out) {
  PoolArgs pool{};
  pool.height = in[1];
  pool.width = in[2];
  pool.channels = in[0];
  pool.out_height = out[1];
  pool.out_width = out[2];
  pool.count_include_pad = op.count_include_pad;
  for (int axis : {0, 1}) {
    pool.kernel[axis] = op.window.kernel[axis];
    pool.stride[axis] = op.window.stride[axis];
    pool.padding[axis] = op.window.padding[axis];
    pool.dilation[axis] = op.window.dilation[axis];
  }
  return pool;
}

namespace {

std::int64_t first_fit(const Program& program, int s) {
  const Slot& slot = program.slots[s];
  std::int64_t offset = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int o = kInputSlot + 1; o < s; ++o) {
      const Slot& other = program.slots[o];
      if (o == program.output_slot || other.last < slot.first || other.first > slot.last) continue;
      if (offset < other.offset + other.place && other.offset < offset + slot.place) {
        offset = other.offset + other.place;
        moved = true;
      }
    }
  }
  return offset;
}

}  // namespace

// The output slot lies in the caller's buffer.
void place_slots(Program& program) {
  for (int i = 0; i < static_cast<int>(program.steps.size()); ++i)
    for (int slot : {program.steps[i].a, program.steps[i].b, program.steps[i].out})
      if (slot >= 0) program.slots[slot].last = i;
  for (int s = kInputSlot + 1; s < static_cast<int>(program.slots.size()); ++s) {
    if (s == program.output_slot) continue;
    Slot& slot = program.slots[s];
    slot.place = (slot.size + kAlignElements - 1) / kAlignElements * kAlignElements;
    slot.offset = first_fit(program, s);
    program.scratch_size = std::max(program.scratch_size, slot.offset + slot.place);
  }
}

}  // namespace marketplace::cpu
