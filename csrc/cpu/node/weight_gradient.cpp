#include "cpu/node/weight_gradient.h"

#include <algorithm>

namespace marketplace::cpu {

WeightGradient::WeightGradient(const Op& op, const Shape& in, const Shape& sum, const Shape& weight,
                               const KernelTable& kernels)
    : kernels_(kernels), in_(in), columns_(weight[0]), pixels_(element_count(sum) / weight[0]) {
  if (op.kind == OpKind::conv2d) {
    build_conv(op, sum, weight);
    return;
  }
  input_floats_ = in[0];
  for (std::int64_t i = 0; i < in[0]; ++i) row_offset_.push_back(i);
  run_offset_ = {0};
}

// Along a row of the result the input moves by the stride; with stride 1 a row is one run.
void WeightGradient::build_conv(const Op& op, const Shape& sum, const Shape& weight) {
  const Window& w = op.window;
  pad_[0] = w.padding[0], pad_[1] = w.padding[1];
  const std::int64_t height = in_[1] + 2 * pad_[0];
  width_ = in_[2] + 2 * pad_[1];
  input_floats_ = in_[0] * height * width_;
  for (std::int64_t c = 0; c < weight[1]; ++c)
    for (std::int64_t kh = 0; kh < weight[2]; ++kh)
      for (std::int64_t kw = 0; kw < weight[3]; ++kw)
        row_offset_.push_back((c * height + kh * w.dilation[0]) * width_ + kw * w.dilation[1]);
  run_length_ = w.stride[1] == 1 ? sum[2] : 1;
  for (std::int64_t h = 0; h < sum[1]; ++h)
    for (std::int64_t x = 0; x < sum[2]; x += run_length_)
      run_offset_.push_back(h * w.stride[0] * width_ + x * w.stride[1]);
}

// As pack_panel lays out columns: whole blocks, the last one narrower if a vector holds it.
std::int64_t WeightGradient::block_width(std::int64_t column) const {
  return columns_ - column > kernels_.vector_floats ? kernels_.vector_floats * kernels_.tile_vectors
                                                    : kernels_.vector_floats;
}

std::int64_t WeightGradient::panel_floats(std::int64_t samples) const {
  std::int64_t width = 0;
  for (std::int64_t c = 0; c < columns_; c += block_width(c)) width += block_width(c);
  return width * samples * pixels_;
}

void WeightGradient::store_input(const float* x, float* out) const {
  if (pad_[0] == 0 && pad_[1] == 0) {
    std::copy_n(x, input_floats_, out);
    return;
  }
  std::fill_n(out, input_floats_, 0.0f);
  const std::int64_t height = in_[1] + 2 * pad_[0];
  for (std::int64_t c = 0; c < in_[0]; ++c)
    for (std::int64_t h = 0; h < in_[1]; ++h)
      std::copy_n(x + (c * in_[1] + h) * in_[2], in_[2],
                  out + (c * height + h + pad_[0]) * width_ + pad_[1]);
}

void WeightGradient::store_errors(const float* errors, float scale, std::int64_t b,
                                  std::int64_t samples, float* panel) const {
  for (std::int64_t column = 0; column < columns_; column += block_width(column)) {
    const std::int64_t width = block_width(column), count = std::min(width, columns_ - column);
    float* out = panel + b * pixels_ * width;
    for (std::int64_t p = 0; p < pixels_; ++p, out += width) {
      const float* in = errors + p * columns_ + column;
      for (std::int64_t c = 0; c < count; ++c) out[c] = in[c] * scale;
      std::fill(out + count, out + width, 0.0f);
    }
    panel += samples * pixels_ * width;
  }
}

void WeightGradient::run(std::int64_t task, std::int64_t samples, const float* inputs,
                         const float* panel, float* result) const {
  const std::int64_t first = task * kTaskRows;
  std::vector<std::int64_t> runs;
  runs.reserve(run_offset_.size() * samples);
  for (std::int64_t b = 0; b < samples; ++b)
    for (std::int64_t offset : run_offset_) runs.push_back(b * input_floats_ + offset);
  ContractArgs args{};
  args.in = inputs;
  args.samples = 1;
  args.row_offset = row_offset_.data() + first;
  args.rows = std::min(kTaskRows, rows() - first);
  args.run_offset = runs.data();
  args.runs = static_cast<std::int64_t>(runs.size());
  args.run_length = run_length_;
  args.panel = panel;
  args.columns = columns_;
  args.out = result + first * columns_;
  args.out_row_stride = columns_;
  kernels_.float32.contract(args);
}

void WeightGradient::add(const float* result, const float* panel, std::int64_t samples,
                         float* weight, float* bias) const {
  for (std::int64_t r = 0; r < rows(); ++r)
    for (std::int64_t o = 0; o < columns_; ++o) weight[o * rows() + r] += result[r * columns_ + o];
  if (!bias) return;
  for (std::int64_t column = 0; column < columns_; column += block_width(column)) {
    const std::int64_t width = block_width(column), count = std::min(width, columns_ - column);
    std::vector<double> sums(count, 0.0);
    for (std::int64_t k = 0; k < samples * pixels_; ++k)
      for (std::int64_t c = 0; c < count; ++c) sums[c] += panel[k * width + c];
    for (std::int64_t c = 0; c < count; ++c) bias[column + c] += static_cast<float>(sums[c]);
    panel += samples * pixels_ * width;
  }
}

}  // namespace marketplace::cpu
