#include <algorithm>

#include "core/batch_checks.h"
#include "gpu/incoming.h"

namespace marketplace::gpu {
namespace {

std::int64_t sample_count(const Session& session) {
  return session.demand.inputs * session.demand.batch;
}

void bring_samples(const Request& request, const Session& session, const IncomingPlaces& places,
                   const Stream& stream) {
  const Batch& batch = *request.batch;
  const std::int64_t values = sample_count(session) * element_count(batch.sample_shape);
  std::byte* to = places.upload + session.upload.samples;
  copy_peer(to, stream.device(), batch.data, batch.device, values * size_bytes(batch.dtype),
            stream);
  if (checks_values(session.signature))
    check_values_gpu(reinterpret_cast<const float*>(to), values, places.report, stream);
}

void bring_labels(const Request& request, const Session& session, const IncomingPlaces& places,
                  std::int64_t classes, const Stream& stream) {
  const DeviceIntegers& there = request.labels->there;
  LoadLabelsArgs args;
  args.in = places.upload + session.upload.raw_labels;
  args.bytes = there.bytes;
  args.is_signed = there.is_signed;
  args.batch = session.demand.batch;
  args.classes = classes;
  args.ignoring = request.labels->ignore_index.has_value();
  args.ignored = request.labels->ignore_index.value_or(0);
  args.out = reinterpret_cast<std::int32_t*>(places.upload + session.upload.labels);
  args.counted = reinterpret_cast<double*>(places.upload + session.upload.counted);
  args.report = places.report;
  copy_peer(places.upload + session.upload.raw_labels, stream.device(), there.data, there.device,
            args.batch * there.bytes, stream);
  load_labels_gpu(args, stream);
}

}  // namespace

bool checks_values(const Signature& signature) {
  return signature.samples_there && signature.batch_dtype == DType::float32;
}

void bring_incoming(const Request& request, const Session& session, const IncomingPlaces& places,
                    std::int64_t classes, const Stream& stream) {
  if (session.signature.samples_there) bring_samples(request, session, places, stream);
  if (session.signature.label_bytes_there > 0)
    bring_labels(request, session, places, classes, stream);
}

void check_incoming(const Session& session, const IncomingReport& report,
                    const std::vector<Program>& programs, const std::byte* upload,
                    const std::vector<std::int64_t>* order, const Stream& stream) {
  if (checks_values(session.signature)) {
    const std::int64_t first =
        *std::min_element(report.not_finite, report.not_finite + kCheckBlocks);
    if (first != kNowhere) {
      float value = 0;
      copy_to_host(&value, upload + session.upload.samples + first * 4, 4, stream);
      stream.synchronize();
      const std::int64_t each = programs[0].input_size, row = first / each;
      refuse_value(value, order ? (*order)[row] : row % session.demand.batch, first % each);
    }
  }
  if (session.signature.label_bytes_there == 0) return;
  if (report.bad_sample != kNowhere)
    refuse_label(report.bad_label, report.bad_sample, programs.back().output_size);
  if (report.counted == 0) refuse_only_ignored();
}

DeviceMemory gather_samples(const Batch& batch, const std::vector<std::int64_t>& order,
                            Device& device) {
  const Stream& stream = device.doors->at(device.index);
  const std::int64_t bytes = element_count(batch.sample_shape) * size_bytes(batch.dtype);
  const auto count = static_cast<std::int64_t>(order.size());
  DeviceMemory samples = device.pool.allocate(count * bytes, stream);
  if (batch.device != device.index) follow(stream, device.doors->at(batch.device));
  const auto* from = static_cast<const std::byte*>(batch.data);
  for (std::int64_t r = 0; r < count; ++r)
    copy_peer(samples.get<std::byte>() + r * bytes, device.index, from + order[r] * bytes,
              batch.device, bytes, stream);
  return samples;
}

}  // namespace marketplace::gpu
