#include <algorithm>

#include "machine.h"

using simt::call;
using simt::call_always;
using simt::Capture;
using simt::Graph;
using simt::State;
using simt::Stream;

namespace {

// Every recorded node must come before the end of the stream that began: others have joined it.
bool all_joined(const Capture& capture, const std::vector<std::size_t>& end) {
  std::vector<bool> reached(capture.nodes.size(), false);
  for (const std::size_t node : end) reached[node] = true;
  for (std::size_t i = capture.nodes.size(); i-- > 0;)
    if (reached[i])
      for (const std::size_t earlier : capture.nodes[i].after) reached[earlier] = true;
  return std::all_of(reached.begin(), reached.end(), [](bool node) { return node; });
}

void leave_capture(State& now, const std::shared_ptr<Capture>& capture) {
  capture->open = false;
  const auto leave = [&](Stream& stream) {
    if (stream.capture != capture) return;
    stream.capture = nullptr;
    stream.began_capture = false;
    stream.capture_tail.clear();
  };
  for (Stream& stream : now.default_streams) leave(stream);
  for (Stream* stream : now.streams) leave(*stream);
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  return call([&](State& now) {
    if (handle == nullptr) return cudaErrorStreamCaptureUnsupported;  // as the default stream
    if (!now.knows(handle)) return cudaErrorInvalidResourceHandle;
    if (handle->capture != nullptr) return cudaErrorStreamCaptureUnmatched;
    handle->capture = std::make_shared<Capture>();
    handle->began_capture = true;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return call_always([&](State& now) {
    *graph = nullptr;
    if (handle == nullptr || !now.knows(handle)) return cudaErrorInvalidResourceHandle;
    if (handle->capture == nullptr || !handle->began_capture)
      return cudaErrorStreamCaptureUnmatched;
    const std::shared_ptr<Capture> capture = handle->capture;
    const bool joined = all_joined(*capture, handle->capture_tail);
    leave_capture(now, capture);
    if (!now.lost.empty()) return cudaErrorLaunchFailure;
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (!joined) return cudaErrorStreamCaptureUnjoined;
    *graph = now.adopt(new Graph{std::move(capture->nodes)});
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call([&](State& now) {
    const Stream* stream = now.find(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    *status =
        stream->capture == nullptr ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long) {
  return call([&](State& now) {
    if (!now.knows(graph)) return cudaErrorInvalidValue;
    *executable = now.adopt(new Graph{graph->nodes});
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    if (stream == nullptr || !now.knows(executable)) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
    ++now.counts.graph_launches;
    std::vector<simt::Work> nodes;
    for (const simt::GraphNode& node : executable->nodes) {
      std::vector<simt::Work> after = {stream->tail};
      for (const std::size_t earlier : node.after) after.push_back(nodes[earlier]);
      nodes.push_back(now.add(after, node.run, node.access));
    }
    now.add(*stream, nullptr, {}, nodes);
    now.progress();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call_always([&](State& now) { return now.destroy(graph); });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call_always([&](State& now) { return now.destroy(executable); });
}
