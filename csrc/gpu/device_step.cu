// A device's part of a whole step, recorded with its update.
#include <algorithm>
#include <cstring>

#include "gpu/device_executor.h"
#include "gpu/incoming.h"
#include "gpu/kernels/coefficients.h"

namespace marketplace::gpu {

bool DeviceExecutor::knows(const Request& request) const {
  const Signature signature = signature_of(request);
  return std::any_of(sessions_.begin(), sessions_.end(), [&](const Session& session) {
    return session.runs > 0 && session.signature == signature;
  });
}

void DeviceExecutor::bring(const Request& request) {
  const DeviceGuard guard(device_->index);
  const Reading reading(vectors_, stream_);
  fetched_.reserve(begin(request).demand.result_bytes);
}

std::vector<std::uint64_t> DeviceExecutor::step_key() const {
  const Session& session = sessions_.front();
  std::vector<std::uint64_t> key{session.number, static_cast<std::uint64_t>(arena_generation_),
                                 reinterpret_cast<std::uintptr_t>(fetched_.get())};
  for (const float* base : session.bases) key.push_back(reinterpret_cast<std::uintptr_t>(base));
  return key;
}

namespace {

// One stream takes part in what is recorded on another, until it is waited for; also where the work
// in between fails: the runtime cannot end a recording that others are still in.
class Part {
 public:
  Part(const Stream& stream, const Stream& recorded) : stream_(stream), recorded_(recorded) {
    follow(stream, recorded);
  }
  ~Part() {
    try {
      follow(recorded_, stream_);
    } catch (const Error&) {
      // the recording is lost anyhow, and its end says so
    }
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

 private:
  const Stream &stream_, &recorded_;
};

}  // namespace

void DeviceExecutor::record_losses(const Stream& stream, float* published) {
  const Part part(stream_, stream);
  const Session& session = sessions_.front();
  run_losses(session);
  PublishArgs args;
  args.losses = at<float>(session.arena.results);
  args.count = session.demand.paths();
  args.report = at<IncomingReport>(session.arena.results + session.report);
  args.checks_values = checks_values(session.signature);
  args.checks_labels = session.signature.label_bytes_there > 0;
  args.out = published;
  publish_losses_gpu(args, stream_);
}

void DeviceExecutor::record_fetch(const Stream& stream, const Verdict* verdict) const {
  const Session& session = sessions_.front();
  if (verdict != nullptr)
    copy_on_device(at<void>(session.arena.results + session.verdict), verdict, sizeof *verdict,
                   stream);
  copy_to_host(fetched_.get(), at<void>(session.arena.results), session.demand.result_bytes,
               stream);
}

Verdict DeviceExecutor::read_verdict() const {
  Verdict verdict;
  std::memcpy(&verdict, fetched_.get<std::byte>() + sessions_.front().verdict, sizeof verdict);
  return verdict;
}

}  // namespace marketplace::gpu
