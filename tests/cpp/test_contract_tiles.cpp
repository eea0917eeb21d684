// Products on matrix units against plain sums, with emulated tiles: every machine runs the kernel
// itself, and the sanitizers see what it reads. Inputs are small integers, so sums are exact.
#define MP_EMULATED_TILES
#include <doctest/doctest.h>

#include <memory>
#include <random>

#include "cpu/geometry.h"
#include "cpu/kernels/contract_tiles.h"
#include "cpu/kernels/pack.h"
#include "cpu/tile_rows.h"

namespace marketplace::cpu {
namespace {

struct Case {
  std::int64_t samples, channels, height, width, columns, kernel[2], stride[2], dilation[2];
  bool bias, relu, float_out;
};

// Exactly as many elements as asked for, so that one more is an error under the sanitizers.
template <class T>
std::unique_ptr<T[]> exactly(std::int64_t count) {
  return std::unique_ptr<T[]>(new T[count]);
}

std::vector<float> integers(std::int64_t count, int seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> draw(-3, 3);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(draw(random));
  return values;
}

float value(const void* out, bool float_out, std::int64_t i) {
  return float_out ? static_cast<const float*>(out)[i]
                   : to_float(static_cast<const BFloat16*>(out)[i]);
}

Contraction contraction(const Case& c) {
  Op op;
  for (int axis : {0, 1}) {
    op.window.kernel[axis] = c.kernel[axis];
    op.window.stride[axis] = c.stride[axis];
    op.window.dilation[axis] = c.dilation[axis];
  }
  const Shape out = {c.columns, op.window.output_extent(0, c.height),
                     op.window.output_extent(1, c.width)};
  REQUIRE(element_count(out) > 0);
  Contraction result = conv_contraction(op, c.width, c.channels, out);
  place_rows(result);
  const std::int64_t depth =
      static_cast<std::int64_t>(result.run_offset.size()) * round_up(result.run_length, 2);
  result.panel_depth = round_up(depth, kMatrixSteps);
  return result;
}

// The operands of one call and what it leaves.
struct Run {
  Run(const Case& given, const Contraction& contraction)
      : c(given),
        product(contraction),
        rows(static_cast<std::int64_t>(product.row_offset.size())),
        runs(static_cast<std::int64_t>(product.run_offset.size())),
        image(c.channels * c.height * c.width),
        x(integers(c.samples * image, 1)),
        weights(integers(c.columns * runs * product.run_length, 2)),
        bias(integers(c.columns, 3)) {
    in = exactly<BFloat16>(c.samples * image);
    for (std::int64_t i = 0; i < c.samples * image; ++i) from_float(x[i], in[i]);
    const std::int64_t width =
        (c.columns + kVectorFloats - 1) / kVectorFloats * kVectorFloats + kVectorFloats;
    panel = exactly<BFloat16>(product.panel_depth * width);
    std::vector<float> staging(product.target.size() * kBlockColumns);
    pack_panel<BFloat16>({weights.data(), c.columns, runs, product.run_length, product.panel_depth,
                          product.target.data(), panel.get(), staging.data()});
    out = exactly<char>(c.samples * rows * c.columns * (c.float_out ? 4 : 2));
    workspace = exactly<char>(product.workspace_bytes);
  }

  ContractArgs args() const {
    ContractArgs args{};
    args.in = in.get();
    args.sample_stride = image;
    args.samples = c.samples;
    args.row_offset = product.row_offset.data();
    args.rows = rows;
    args.tiles = product.tiles;
    args.pieces = product.pieces.data();
    args.piece_count = static_cast<std::int64_t>(product.pieces.size());
    args.run_offset = product.run_offset.data();
    args.runs = runs;
    args.run_length = product.run_length;
    args.panel = panel.get();
    args.columns = c.columns;
    args.bias = c.bias ? bias.data() : nullptr;
    args.relu = c.relu;
    args.float_out = c.float_out;
    args.out = out.get();
    args.out_row_stride = c.columns;
    args.workspace = workspace.get();
    args.workspace_bytes = product.workspace_bytes;
    return args;
  }

  float expected(std::int64_t sample, std::int64_t row, std::int64_t column) const {
    const auto depth = static_cast<std::int64_t>(product.target.size());
    float sum = c.bias ? bias[column] : 0;
    for (std::int64_t k = 0; k < depth; ++k) {
      const std::int64_t step = product.target[k];
      const std::int64_t at = product.row_offset[row] +
                              product.run_offset[step / product.run_length] +
                              step % product.run_length;
      sum += weights[column * depth + k] * x[sample * image + at];
    }
    return c.relu && sum < 0 ? 0 : sum;
  }

  // Elements that are not what they should be.
  std::int64_t wrong() const {
    std::int64_t count = 0;
    for (std::int64_t s = 0; s < c.samples; ++s)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t o = 0; o < c.columns; ++o) {
          BFloat16 rounded;
          from_float(expected(s, r, o), rounded);
          const float right = c.float_out ? expected(s, r, o) : to_float(rounded);
          count += value(out.get(), c.float_out, (s * rows + r) * c.columns + o) != right;
        }
    return count;
  }

  const Case& c;
  const Contraction& product;
  const std::int64_t rows, runs, image;
  const std::vector<float> x, weights, bias;
  std::unique_ptr<BFloat16[]> in, panel;
  std::unique_ptr<char[]> out, workspace;
};

void check(const Case& c) {
  CAPTURE(c.channels);
  CAPTURE(c.height);
  CAPTURE(c.width);
  CAPTURE(c.columns);
  CAPTURE(c.stride[0]);
  const Contraction product = contraction(c);
  const Run run(c, product);
  contract_tiles(run.args());
  CHECK(run.wrong() == 0);
}

}  // namespace

TEST_CASE("matrix units: images of many shapes") {
  for (std::int64_t channels : {1, 3, 32, 64})
    for (std::int64_t size : {5, 9, 12})
      for (std::int64_t columns : {1, 16, 40})
        check({2, channels, size, size + 1, columns, {3, 3}, {1, 1}, {1, 1}, true, false, false});
}

TEST_CASE("matrix units: strides, dilations, single rows and columns") {
  check({3, 32, 11, 17, 32, {3, 3}, {2, 2}, {1, 1}, true, true, false});
  check({3, 32, 12, 40, 33, {3, 3}, {2, 1}, {1, 1}, false, true, false});
  check({2, 64, 9, 40, 32, {1, 1}, {1, 2}, {1, 1}, false, false, true});
  check({2, 32, 14, 13, 20, {2, 3}, {1, 1}, {2, 3}, true, false, false});
  check({5, 32, 6, 6, 8, {1, 1}, {1, 1}, {1, 1}, true, false, false});
  check({33, 32, 1, 3, 70, {1, 3}, {1, 1}, {1, 1}, true, true, true});
  check({7, 20, 1, 7, 5, {1, 3}, {1, 3}, {1, 1}, true, false, false});
}

TEST_CASE("matrix units: linear layers, whole steps and not, and few samples") {
  for (std::int64_t depth : {31, 32, 64, 100})
    for (std::int64_t samples : {1, 2, 15, 16, 17, 33, 70})
      check({samples, depth, 1, 1, 24, {1, 1}, {1, 1}, {1, 1}, true, false, samples % 2 == 0});
}

TEST_CASE("matrix units: where rows are loaded") {
  const auto tiles = [](std::int64_t channels, std::int64_t size, std::int64_t stride,
                        std::int64_t columns = 32) {
    return contraction({1,
                        channels,
                        size,
                        size,
                        columns,
                        {3, 3},
                        {stride, stride},
                        {1, 1},
                        false,
                        false,
                        false})
        .tiles;
  };
  CHECK(tiles(20, 12, 1).gathered);         // runs that are no whole steps
  const TileRows apart = tiles(32, 18, 1);  // lines of 16 rows, none wasted
  CHECK_FALSE(apart.gathered);
  CHECK(apart.segments == 16);
  const TileRows together = tiles(32, 12, 1);  // 10 of every 12 positions are rows
  CHECK_FALSE(together.gathered);
  CHECK(together.segments == 1);
  CHECK(together.positions == 9 * 12 + 10);
  CHECK(together.pitch == 12);
  CHECK_FALSE(tiles(32, 9, 2).gathered);  // half is wasted, which costs less than a copy
  CHECK(tiles(32, 9, 2, 128).gathered);   // but not for four times the columns
}

TEST_CASE("matrix units: values that are no numbers stay in their rows") {
  const Case c{2, 32, 8, 8, 16, {3, 3}, {1, 1}, {1, 1}, false, true, true};
  const Contraction product = contraction(c);
  Run run(c, product);
  CHECK_FALSE(product.tiles.gathered);
  run.in[run.image].bits = 0x7FC0;  // the second sample's first pixel
  contract_tiles(run.args());
  const auto* out = reinterpret_cast<const float*>(run.out.get());
  for (std::int64_t i = 0; i < 2 * run.rows * c.columns; ++i)
    CHECK((out[i] != out[i]) == (i / c.columns == run.rows));
}

}  // namespace marketplace::cpu
