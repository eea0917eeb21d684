#include <algorithm>

#include "machine.h"

using simt::call;
using simt::call_always;
using simt::Event;
using simt::State;
using simt::Stream;

namespace simt {

void State::put(Stream& stream, std::function<void()> run, Access access) {
  if (stream.capture != nullptr) {
    stream.capture->nodes.push_back({std::move(run), access, stream.capture_tail});
    stream.capture_tail = {stream.capture->nodes.size() - 1};
    return;
  }
  add(stream, std::move(run), access);
  progress();
}

namespace {

cudaError_t check_launch(State& now, const Launch& work, const Stream& stream) {
  if (stream.device != current_device()) return cudaErrorInvalidResourceHandle;
  const std::uint64_t threads =
      static_cast<std::uint64_t>(work.block.x) * work.block.y * work.block.z;
  const dim3& grid = work.grid;
  if (threads < 1 || threads > 1024 || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
      grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  const auto allowed = now.shared_limits.find({work.kernel, stream.device});
  const std::size_t limit = allowed == now.shared_limits.end() ? 0 : allowed->second;
  if (work.shared_bytes > limit) return cudaErrorInvalidValue;
  return fails_now(now.launch_to_fail) ? cudaErrorLaunchOutOfResources : cudaSuccess;
}

}  // namespace

cudaError_t launch(Launch work, cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    const cudaError_t error = check_launch(now, work, *stream);
    if (error != cudaSuccess) return error;
    ++now.counts.launches;
    const Access access = {1u << stream->device, stream->device};
    now.put(
        *stream,
        [&now, work = std::move(work)] {
          const std::string failure = run_grid(work, now.random);
          if (!failure.empty()) now.lost = kernel_name(work.kernel) + ": " + failure;
        },
        access);
    return cudaSuccess;
  });
}

cudaError_t allow_shared(const void* kernel, std::size_t bytes) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, current_device());
  if (error != cudaSuccess) return error;
  return call([&](State& now) {
    if (bytes > properties.sharedMemPerBlockOptin) return cudaErrorInvalidValue;
    now.shared_limits[{kernel, current_device()}] = bytes;
    return cudaSuccess;
  });
}

}  // namespace simt

namespace {

// Waiting is impossible while a graph is being recorded.
cudaError_t refuse_capture(Stream& stream) {
  if (stream.capture == nullptr) return cudaSuccess;
  stream.capture->invalid = true;
  return cudaErrorStreamCaptureUnsupported;
}

void append(std::vector<std::size_t>& nodes, const std::vector<std::size_t>& more) {
  nodes.insert(nodes.end(), more.begin(), more.end());
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
}

}  // namespace

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return call([&](State& now) {
    *stream = now.adopt(new Stream);
    (*stream)->device = simt::current_device();
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call_always([&](State& now) { return now.destroy(stream); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    const cudaError_t error = refuse_capture(*stream);
    if (error == cudaSuccess) now.run_until(stream->tail);
    return error;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    const cudaError_t error = refuse_capture(*stream);
    if (error != cudaSuccess) return error;
    now.progress();
    return stream->tail == nullptr || stream->tail->done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&](State& now) {
    *event = now.adopt(new Event);
    (*event)->device = simt::current_device();
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call_always([&](State& now) { return now.destroy(event); });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr || !now.knows(event) || event->device != stream->device)
      return cudaErrorInvalidResourceHandle;
    event->capture = stream->capture;
    if (stream->capture != nullptr) {
      event->nodes = stream->capture_tail;
      return cudaSuccess;
    }
    event->time = std::make_shared<double>(0);
    event->work = now.add(*stream, [&now, time = event->time] { *time = now.clock; }, {});
    now.progress();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr || !now.knows(event)) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr && event->capture->open) {
      if (stream->capture != nullptr && stream->capture != event->capture)
        return cudaErrorStreamCaptureIsolation;
      stream->capture = event->capture;
      append(stream->capture_tail, event->nodes);
      return cudaSuccess;
    }
    if (stream->capture != nullptr) {  // on work outside of the graph
      stream->capture->invalid = true;
      return cudaErrorStreamCaptureIsolation;
    }
    if (event->work != nullptr) now.add(*stream, nullptr, {}, {event->work});
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&](State& now) {
    if (!now.knows(event)) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr && event->capture->open) return cudaErrorStreamCaptureUnsupported;
    now.run_until(event->work);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call([&](State& now) {
    if (!now.knows(event)) return cudaErrorInvalidResourceHandle;
    now.progress();
    return event->work == nullptr || event->work->done ? cudaSuccess : cudaErrorNotReady;
  });
}

// A piece of work counts as a millisecond.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call([&](State& now) {
    if (!now.knows(start) || !now.knows(end) || !start->timed || !end->timed ||
        start->work == nullptr || end->work == nullptr)
      return cudaErrorInvalidResourceHandle;
    if (!start->work->done || !end->work->done) return cudaErrorNotReady;
    *milliseconds = static_cast<float>(*end->time - *start->time);
    return cudaSuccess;
  });
}
