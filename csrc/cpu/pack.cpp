// One vendor's weights, made from the base weights and the vendor's delta on the way into panels.
#include <algorithm>
#include <cstring>

#include "cpu/program.h"

namespace marketplace::cpu {

void vendor_parameter(const KernelTable& kernels, const Model& model, const VendorWeights& weights,
                      std::int64_t vendor, int id, float* out) {
  const float* base = model.data(id);
  const std::int64_t count = model.size(id), offset = model.offset(id);
  switch (weights.kind) {
    case VendorWeights::Kind::base: break;
    case VendorWeights::Kind::seeded:
      if (weights.seeds[vendor] == 0) break;
      kernels.perturb(weights.seeds[vendor], model.counter(id), weights.seeded_amplitude(vendor),
                      base, out, count);
      return;
    case VendorWeights::Kind::scaled:
      kernels.add_scaled(base, weights.values->data() + offset, weights.scales[vendor], out, count);
      return;
    case VendorWeights::Kind::explicit_:
      base = weights.values->data() + vendor * model.parameter_count() + offset;
      break;
  }
  std::copy(base, base + count, out);
}

namespace {

// staging: the parameter itself, then room for the kernel.
void pack_contraction(const Step& step, const TypedKernels& typed, float* staging,
                      std::byte* panel) {
  const Contraction& c = step.contraction;
  const auto depth = static_cast<std::int64_t>(c.target.size());
  PackArgs args{};
  args.columns = c.columns;
  args.runs = static_cast<std::int64_t>(c.run_offset.size());
  args.run_length = c.run_length;
  args.panel_depth = c.panel_depth;
  args.target = c.target.data();
  args.staging = staging + c.groups * c.columns * depth;
  for (std::int64_t g = 0; g < c.groups; ++g) {
    args.weights = staging + g * c.columns * depth;
    args.panel = panel + g * c.panel_bytes;
    typed.pack_panel(args);
  }
}

void pack_winograd(const Step& step, const TypedKernels& typed, float* staging, std::byte* panel) {
  WinogradPackArgs args{};
  args.outputs = step.winograd.outputs;
  args.weights = staging;
  args.columns = step.winograd.columns;
  args.channels = step.winograd.channels;
  args.target = step.contraction.target.data();
  args.panel = panel;
  args.staging = staging + args.columns * args.channels * 9;
  typed.winograd_pack(args);
}

void pack_grouped(const Step& step, const TypedKernels& typed, float* staging, std::byte* panel) {
  const Contraction& c = step.contraction;
  GroupedPackArgs args{};
  args.weights = staging;
  args.columns = c.groups * c.columns;
  args.depth = static_cast<std::int64_t>(c.target.size());
  args.group_inputs = c.group_input;
  args.group_outputs = c.columns;
  args.target = c.target.data();
  args.panel = reinterpret_cast<float*>(panel);
  typed.grouped_pack(args);
}

using Packer = void (*)(const Step&, const TypedKernels&, float* staging, std::byte* panel);

// Null for steps whose parameters are read as they are.
Packer packer(StepKind kind) {
  switch (kind) {
    case StepKind::contract: return pack_contraction;
    case StepKind::winograd: return pack_winograd;
    case StepKind::grouped: return pack_grouped;
    default: return nullptr;
  }
}

}  // namespace

void pack_vendor(const Program& program, const KernelTable& kernels, const TypedKernels& typed,
                 const Model& model, const VendorWeights& weights, std::int64_t vendor,
                 float* staging, std::byte* packed) {
  for (const Step& step : program.steps) {
    if (const Packer pack = packer(step.kind)) {
      vendor_parameter(kernels, model, weights, vendor, step.weight, staging);
      pack(step, typed, staging, packed + step.weight_at);
    } else if (step.weight_at >= 0) {
      vendor_parameter(kernels, model, weights, vendor, step.weight,
                       reinterpret_cast<float*>(packed + step.weight_at));
    }
    if (step.bias_at >= 0)
      vendor_parameter(kernels, model, weights, vendor, step.bias,
                       reinterpret_cast<float*>(packed + step.bias_at));
  }
}

}  // namespace marketplace::cpu
