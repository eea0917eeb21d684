// Some ops of a market made ready for GPUs, in float32: what every device shares, and what each
// has.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/device.h"
#include "gpu/kernels/random.h"
#include "gpu/run_program.h"
#include "gpu/weights.h"
#include "graph/chain.h"

namespace marketplace::gpu {

using Models = std::vector<std::shared_ptr<Model>>;

// Row r of a call runs variant r of the weights, counted from the call's first, or the only one, on
// input r.
struct Segment {
  Program program;
  Schedule schedule;  // of one chunk
  std::int64_t variants = 1, rows = 1;

  // Parameters of one spec of the market, by where they are in its flat weights.
  struct Source {
    std::size_t spec = 0;
    ParameterTable table;
  };
  std::vector<Source> sources;

  // Running statistics of a batch norm, in the order of the steps.
  struct Running {
    Slice::Source mean, variance;
    std::int64_t channels = 0;
  };
  std::vector<Running> running;

  Places places(std::int64_t samples) const { return places(samples, rows); }
  Places places(std::int64_t samples, std::int64_t some) const {
    return place_slots(program, DType::float32, some, some, samples);
  }
};

// `last`: the result is planar.
Segment make_segment(const Model& model, const Shape& input_shape, Layout layout, bool last,
                     std::int64_t variants, std::int64_t rows);
// Of ops of the market, whose weights are to be packed from there.
Segment make_segment(const Slice& slice, const Models& models, const Shape& input_shape,
                     Layout layout, bool last, std::int64_t variants, std::int64_t rows);

class DeviceSegment {
 public:
  DeviceSegment(std::shared_ptr<const Segment> segment, Device& device, const Stream& stream);

  const Segment& segment() const { return *segment_; }
  const Program& program() const { return segment_->program; }
  std::byte* packed(std::int64_t variant = 0) const {
    return packed_.get<std::byte>() + variant * segment_->program.packed_bytes;
  }
  const Tap* taps() const { return table<Tap>(taps_); }

  // Running statistics from the host, at once.
  void load_running(const Models& models, const Stream& stream) const;
  // The market's weights into all variants; bases: per spec, on this device.
  void pack(const std::vector<const float*>& bases, const Stream& stream) const;

  struct Call {
    std::int64_t samples = 0, variant = 0;  // the first row's
    const float* in = nullptr;              // (rows, samples, input)
    float* out = nullptr;                   // (rows, samples, output), unless there is a loss
    std::byte* scratch = nullptr;
    LossArgs loss;
    std::int64_t rows = 0;  // 0: all; fewer where there are no products
  };
  void run(const DeviceInfo& device, const Call& call, const Stream& stream) const;

 private:
  template <class T>
  const T* table(std::int64_t at) const {
    return reinterpret_cast<const T*>(constants_.get<std::byte>() + at);
  }

  std::shared_ptr<const Segment> segment_;
  std::int64_t taps_ = 0, schedule_ = 0;
  struct SourceTables {
    std::int64_t parameters, tiles;
  };
  std::vector<SourceTables> sources_;
  DeviceMemory constants_, packed_, running_;
};

}  // namespace marketplace::gpu
