// One vendor's weights, made from the base weights and the vendor's delta on the way into panels.
#include <algorithm>

#include "cpu/program.h"
#include "cpu/winograd.h"

namespace marketplace::cpu {
namespace {

constexpr std::int64_t kPieceWeights = 1 << 15;

// Elements [first, first + count) of a parameter, all of them where they are drawn: read where they
// lie if they lie somewhere, else made in `staging`.
const float* vendor_values(const KernelTable& kernels, const Model& model,
                           const VendorWeights& weights, std::int64_t vendor, int id,
                           std::int64_t first, std::int64_t count, float* staging) {
  const float* base = model.data(id) + first;
  const std::int64_t offset = model.offset(id) + first;
  switch (weights.kind) {
    case VendorWeights::Kind::base: break;
    case VendorWeights::Kind::seeded:
      if (!is_drawn(weights, vendor)) break;
      kernels.perturb(weights.seeds[vendor], model.counter(id), weights.seeded_amplitude(vendor),
                      base, staging, count);
      return staging;
    case VendorWeights::Kind::scaled:
      kernels.add_scaled(base, weights.values->data() + offset, weights.scales[vendor], staging,
                         count);
      return staging;
    case VendorWeights::Kind::explicit_:
      return weights.values->data() + vendor * model.parameter_count() + offset;
  }
  return base;
}

// What a packer gets: (columns, depth) values of every group, and room for the kernel.
struct Columns {
  std::int64_t count;
  const float* values;
  float* staging;
  std::byte* panel;
};

void pack_contraction(const Step& step, const TypedKernels& typed, const Columns& columns) {
  const Contraction& c = step.contraction;
  PackArgs args{};
  args.columns = columns.count;
  args.runs = static_cast<std::int64_t>(c.run_offset.size());
  args.run_length = c.run_length;
  args.panel_depth = c.panel_depth;
  args.target = c.target.data();
  args.staging = columns.staging;
  for (std::int64_t g = 0; g < c.groups; ++g) {
    args.weights = columns.values + g * columns.count * static_cast<std::int64_t>(c.target.size());
    args.panel = columns.panel + g * c.panel_bytes;
    typed.pack_panel(args);
  }
}

void pack_winograd(const Step& step, const TypedKernels& typed, const Columns& columns) {
  WinogradPackArgs args{};
  args.kernel = step.winograd.kernel;
  args.outputs = step.winograd.outputs;
  args.weights = columns.values;
  args.columns = columns.count;
  args.channels = step.winograd.channels;
  args.target = step.contraction.target.data();
  args.panel = columns.panel;
  args.staging = columns.staging;
  typed.winograd_pack(args);
}

void pack_grouped(const Step& step, const TypedKernels& typed, const Columns& columns) {
  const Contraction& c = step.contraction;
  GroupedPackArgs args{};
  args.weights = columns.values;
  args.columns = c.groups * columns.count;
  args.depth = static_cast<std::int64_t>(c.target.size());
  args.group_inputs = c.group_input;
  args.group_outputs = columns.count;
  args.target = c.target.data();
  args.panel = reinterpret_cast<float*>(columns.panel);
  typed.grouped_pack(args);
}

using Packer = void (*)(const Step&, const TypedKernels&, const Columns&);

// Null for steps whose parameters are read as they are.
Packer packer(StepKind kind) {
  switch (kind) {
    case StepKind::contract: return pack_contraction;
    case StepKind::winograd: return pack_winograd;
    case StepKind::grouped: return pack_grouped;
    default: return nullptr;
  }
}

bool has_weights(const Step& step) {
  return step.weight_at >= 0 || step.bias_at >= 0;
}

PackPiece whole_step(const Step& step) {
  const bool winograd = step.kind == StepKind::winograd;
  return {&step, 0, winograd ? step.winograd.columns : step.contraction.columns};
}

// Bytes of one packed column, where a step's blocks of columns follow one another; else 0.
std::int64_t column_bytes(const Step& step, const KernelTable& kernels, DType dtype) {
  if (step.kind == StepKind::winograd)
    return winograd_panel_bytes(step.winograd, dtype, kernels) /
           padded_columns(step.winograd.columns, kernels);
  const bool single = step.kind == StepKind::contract && step.contraction.groups == 1;
  return single ? step.contraction.panel_depth * size_bytes(dtype) : 0;
}

// Whole blocks of columns each; bytes: of a packed column.
void add_column_pieces(const Step& step, std::int64_t bytes, std::int64_t block,
                       std::vector<PackPiece>& pieces) {
  const std::int64_t columns = whole_step(step).columns;
  const std::int64_t block_weights =
      block * static_cast<std::int64_t>(step.contraction.target.size());
  const std::int64_t each = std::max<std::int64_t>(1, kPieceWeights / block_weights) * block;
  for (std::int64_t first = 0; first < columns; first += each)
    pieces.push_back({&step, first, std::min(each, columns - first), first * bytes});
}

}  // namespace

bool is_drawn(const VendorWeights& weights, std::int64_t vendor) {
  return weights.kind == VendorWeights::Kind::seeded && weights.seeds[vendor] != 0;
}

void vendor_parameter(const KernelTable& kernels, const Model& model, const VendorWeights& weights,
                      std::int64_t vendor, int id, float* out) {
  const std::int64_t count = model.size(id);
  const float* values = vendor_values(kernels, model, weights, vendor, id, 0, count, out);
  if (values != out) std::copy_n(values, count, out);
}

std::vector<PackPiece> pack_pieces(const Program& program, const KernelTable& kernels,
                                   DType dtype) {
  std::vector<PackPiece> pieces;
  for (const Step& step : program.steps) {
    if (!has_weights(step)) continue;
    if (const std::int64_t bytes = column_bytes(step, kernels, dtype))
      add_column_pieces(step, bytes, kernels.vector_floats * kernels.tile_vectors, pieces);
    else
      pieces.push_back(whole_step(step));
  }
  return pieces;
}

std::vector<PackPiece> pack_steps(const Program& program) {
  std::vector<PackPiece> steps;
  for (const Step& step : program.steps)
    if (has_weights(step)) steps.push_back(whole_step(step));
  return steps;
}

void pack_piece(const PackPiece& piece, const KernelTable& kernels, const TypedKernels& typed,
                const Model& model, const VendorWeights& weights, std::int64_t vendor,
                float* staging, std::byte* packed) {
  const Step& step = *piece.step;
  if (const Packer pack = packer(step.kind)) {
    const auto depth = static_cast<std::int64_t>(step.contraction.target.size());
    const std::int64_t count = step.contraction.groups * piece.columns * depth;
    const float* values = vendor_values(kernels, model, weights, vendor, step.weight,
                                        piece.first * depth, count, staging);
    pack(step, typed, {piece.columns, values, staging + count, packed + step.weight_at + piece.at});
  } else if (step.weight_at >= 0) {
    vendor_parameter(kernels, model, weights, vendor, step.weight,
                     reinterpret_cast<float*>(packed + step.weight_at));
  }
  if (step.bias_at >= 0 && piece.first == 0)
    vendor_parameter(kernels, model, weights, vendor, step.bias,
                     reinterpret_cast<float*>(packed + step.bias_at));
}

void pack_vendor(const Program& program, const KernelTable& kernels, const TypedKernels& typed,
                 const Model& model, const VendorWeights& weights, std::int64_t vendor,
                 float* staging, std::byte* packed) {
  for (const PackPiece& step : pack_steps(program))
    pack_piece(step, kernels, typed, model, weights, vendor, staging, packed);
}

}  // namespace marketplace::cpu
