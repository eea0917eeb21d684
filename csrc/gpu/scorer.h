// From the losses of a plan's paths to the coefficients of a step, on every device of a team: each
// tells the others the losses of its part, then all of them compute the same.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "gpu/kernels/coefficients.h"
#include "gpu/team.h"
#include "shares.h"

namespace marketplace::gpu {

class Scorer {
 public:
  // parts: of the plan, part k on device k.
  Scorer(std::shared_ptr<Team> team, Scoring scoring, const std::vector<Part>& parts);
  bool serves(const Scoring& scoring, const std::vector<Part>& parts) const;

  // Where a device publishes the losses of its own part.
  float* losses(std::size_t device) const { return losses(device, device); }
  // Per device, the coefficients (V,) of a spec, and the verdict on all losses.
  std::vector<const float*> coefficients(std::size_t spec) const;
  std::vector<const Verdict*> verdicts() const;
  // Adds what follows the published losses, as tasks.
  void add_tasks() const;

 private:
  // Bytes into every device's block; the tables come first.
  struct Places {
    std::int64_t entries = 0, group_of = 0, group_first = 0, must_differ = 0, terms = 0,
                 term_first = 0;
    std::int64_t losses = 0, moments = 0, scores = 0, coefficients = 0, verdict = 0;
  };

  std::vector<std::byte> make_tables();
  void make_entries(std::vector<std::byte>& block);
  void make_terms(std::vector<std::byte>& block);
  float* losses(std::size_t device, std::size_t part) const;
  void exchange() const;
  ScoreArgs arguments(std::size_t device) const;
  template <class T>
  T* at(std::size_t device, std::int64_t place) const {
    return reinterpret_cast<T*>(memory_[device].get<std::byte>() + place);
  }

  std::shared_ptr<Team> team_;
  Scoring scoring_;
  std::vector<std::vector<std::int64_t>> paths_;  // of the parts
  std::vector<std::int64_t> part_first_;          // among the published losses
  std::vector<std::int64_t> spec_first_;          // among the coefficients
  std::int64_t loss_count_ = 0, entry_count_ = 0, coefficient_count_ = 0;
  Places places_;
  std::uint64_t number_;
  std::vector<DeviceMemory> memory_;  // per device
};

}  // namespace marketplace::gpu
