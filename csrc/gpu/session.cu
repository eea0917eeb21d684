#include <algorithm>

#include "gpu/kernels/incoming.h"
#include "gpu/kernels/verdict.h"
#include "gpu/session.h"

namespace marketplace::gpu {
namespace {

std::vector<std::int64_t> used_counts(const Plan& plan) {
  std::vector<std::int64_t> counts;
  for (const std::vector<char>& level : used_rows(plan))
    counts.push_back(std::count(level.begin(), level.end(), 1));
  return counts;
}

std::vector<LeaderPlace> leader_places(const std::vector<Program>& programs, const Request& request,
                                       Extent& results) {
  std::vector<LeaderPlace> places;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    if (request.inference || request.leaders[i] < 0) continue;
    for (const Step& step : programs[i].steps)
      if (step.kind == StepKind::batch_norm)
        places.push_back({static_cast<int>(i), step.node, step.channels,
                          step.rows * request.batch->size, results.add(2 * step.channels * 4)});
  }
  return places;
}

}  // namespace

Signature signature_of(const Request& request) {
  Signature signature;
  for (const Plan::Level& level : request.plan->levels) {
    signature.vendor.push_back(level.vendor);
    signature.parent.push_back(level.parent);
  }
  signature.input_count = request.plan->input_count;
  signature.batch = request.batch->size;
  signature.batch_dtype = request.batch->dtype;
  signature.samples_there = request.batch->device != kHost;
  if (request.labels && request.labels->data == nullptr)
    signature.label_bytes_there = request.labels->there.bytes;
  for (const VendorWeights& weights : *request.weights)
    signature.vendors.push_back({weights.kind, weights.count});
  signature.losses = request.labels != nullptr;
  if (request.labels) signature.ignore_index = request.labels->ignore_index;
  signature.inference = request.inference;
  signature.leaders = request.leaders;
  return signature;
}

Session make_session(const std::vector<Program>& programs, const Request& request) {
  Session session;
  session.signature = signature_of(request);
  session.upload = plan_upload(programs, request);
  Demand& demand = session.demand;
  demand.batch = request.batch->size;
  demand.inputs = request.plan->input_count;
  demand.rows = used_counts(*request.plan);
  for (const VendorWeights& weights : *request.weights) demand.vendors.push_back(weights.count);
  demand.losses = request.labels != nullptr;
  demand.inference = request.inference;
  demand.upload_bytes = session.upload.arena_bytes;
  Extent results;
  // the verdict is copied with the losses
  session.verdict = demand.paths() * 4;
  results.add(demand.losses ? session.verdict + static_cast<std::int64_t>(sizeof(Verdict)) : 0);
  session.leaders = leader_places(programs, request, results);
  const bool checked = session.signature.checked_there();
  session.report = results.add(checked ? static_cast<std::int64_t>(sizeof(IncomingReport)) : 0);
  demand.result_bytes = results.bytes();
  return session;
}

}  // namespace marketplace::gpu
