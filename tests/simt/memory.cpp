#include <cstring>
#include <memory>

#include "machine.h"

using simt::Access;
using simt::Allocation;
using simt::call;
using simt::call_always;
using simt::State;
using simt::Stream;

namespace {

// Ends or begins a block when its stream has come that far.
cudaError_t allocate_in_order(State& now, void** data, std::size_t bytes, int device,
                              cudaStream_t handle) {
  Stream* stream = now.find(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  const cudaError_t error = now.begin_allocation(bytes, device);
  if (error != cudaSuccess) return error;
  Allocation& block = now.allocate(bytes, device, true, false);
  *data = block.data;
  now.add(*stream, [&block] { block.live = true; }, {});
  now.progress();
  return cudaSuccess;
}

// Every stream synchronises with the host: allocation as the old calls do it.
cudaError_t allocate_now(State& now, void** data, std::size_t bytes, int device) {
  const cudaError_t error = now.begin_allocation(bytes, device);
  if (error == cudaSuccess) *data = now.allocate(bytes, device, false, true).data;
  return error;
}

cudaError_t free_now(State& now, void* data) {
  if (data == nullptr) return cudaSuccess;
  now.run_all();
  Allocation* block = now.find(data, 0);
  if (block == nullptr || block->data != data) return cudaErrorInvalidValue;
  now.release(block);
  return cudaSuccess;
}

// What a copy knows about one of its ends.
struct End {
  Allocation* block = nullptr;
  bool on_device() const { return block != nullptr && block->device >= 0; }
  bool pageable() const { return block == nullptr; }
  unsigned device_bit() const { return on_device() ? 1u << block->device : 0u; }
};

// Whether a device can copy to and from a block itself.
bool reaches(const State& now, int device, const Allocation& block) {
  if (device == block.device) return true;
  return block.pooled ? (block.peers >> device & 1) != 0 : now.peers[device][block.device];
}

bool matches(cudaMemcpyKind kind, const End& to, const End& from) {
  switch (kind) {
    case cudaMemcpyHostToHost: return !to.on_device() && !from.on_device();
    case cudaMemcpyHostToDevice: return to.on_device() && !from.on_device();
    case cudaMemcpyDeviceToHost: return !to.on_device() && from.on_device();
    case cudaMemcpyDeviceToDevice: return to.on_device() && from.on_device();
    case cudaMemcpyDefault: return true;
  }
  return false;
}

// What a copy adds to the counts, whenever it is asked for or a graph with it is run.
std::function<void()> counter(simt::Counts& counts, const End& to, const End& from,
                              std::size_t bytes) {
  std::int64_t* sum = nullptr;
  if (to.on_device() && from.on_device() && to.block->device != from.block->device)
    sum = &counts.bytes_among_devices;
  if (to.on_device() && !from.on_device()) sum = &counts.bytes_to_devices;
  if (!to.on_device() && from.on_device()) sum = &counts.bytes_to_host;
  return [&counts, sum, copied = static_cast<std::int64_t>(bytes)] {
    ++counts.copies;
    if (sum != nullptr) *sum += copied;
  };
}

cudaError_t copy(State& now, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle) {
  Stream* stream = now.find(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const End target = {now.find(to, bytes)}, source = {now.find(from, bytes)};
  if (!matches(kind, target, source)) return cudaErrorInvalidValue;
  if (simt::fails_now(now.copy_to_fail)) return cudaErrorInvalidValue;
  const std::function<void()> count = counter(now.counts, target, source, bytes);
  const Access access = {target.device_bit() | source.device_bit(), -1};
  const bool pageable = target.pageable() || source.pageable();
  if (stream->capture != nullptr && pageable) {
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (stream->capture != nullptr) {
    now.put(
        *stream,
        [=] {
          count();
          std::memcpy(to, from, bytes);
        },
        access);
    return cudaSuccess;
  }
  count();
  if (pageable) ++now.counts.pageable_copies;
  // ordinary memory too is read late: the driver takes a copy of it at once only where the device
  // cannot reach it
  now.put(*stream, [=] { std::memcpy(to, from, bytes); }, access);
  if (target.pageable()) now.run_until(stream->tail);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  return call([&](State& now) { return allocate_now(now, data, bytes, simt::current_device()); });
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return call([&](State& now) { return allocate_now(now, data, bytes, -1); });
}
cudaError_t cudaFree(void* data) {
  return call_always([&](State& now) { return free_now(now, data); });
}
cudaError_t cudaFreeHost(void* data) {
  return call_always([&](State& now) { return free_now(now, data); });
}

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  return call([&](State& now) {
    return allocate_in_order(now, data, bytes, simt::current_device(), stream);
  });
}
cudaError_t cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  return call([&](State& now) {
    if (!now.knows(pool)) return cudaErrorInvalidResourceHandle;
    const cudaError_t error = allocate_in_order(now, data, bytes, pool->device, stream);
    if (error == cudaSuccess) now.find(*data, bytes)->peers = pool->peers;
    return error;
  });
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t handle) {
  return call_always([&](State& now) {
    Stream* stream = now.find(handle);
    Allocation* block = now.find(data, 0);
    if (block == nullptr || block->data != data || block->device < 0) return cudaErrorInvalidValue;
    if (!now.lost.empty()) {
      now.release(block);
      return cudaErrorLaunchFailure;
    }
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
    block->freed = true;
    now.add(*stream, [&now, block] { now.release(block); }, {});
    now.progress();
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  return call([&](State& now) {
    *total_bytes = static_cast<std::size_t>(now.machine.memory_bytes);
    *free_bytes = *total_bytes - now.used_bytes(simt::current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* data) {
  return call([&](State& now) {
    const Allocation* block = now.find(data, 0);
    *found = {cudaMemoryTypeUnregistered, -1};
    if (block != nullptr && block->device < 0) *found = {cudaMemoryTypeHost, 0};
    if (block != nullptr && block->device >= 0) *found = {cudaMemoryTypeDevice, block->device};
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call([&](State& now) {
    const int device = properties->location.id;
    if (device < 0 || device >= now.machine.devices) return cudaErrorInvalidDevice;
    if (!now.machine.memory_pools) return cudaErrorNotSupported;
    *pool = now.adopt(new simt::MemoryPool{device});
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return call_always([&](State& now) { return now.destroy(pool); });
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void*) {
  return call(
      [&](State& now) { return now.knows(pool) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* access,
                                 std::size_t count) {
  return call([&](State& now) {
    if (!now.knows(pool)) return cudaErrorInvalidResourceHandle;
    for (std::size_t i = 0; i < count; ++i) {
      const int peer = access[i].location.id;
      if (!now.machine.peer_access || peer < 0 || peer >= now.machine.devices)
        return cudaErrorInvalidDevice;
      pool->peers |= 1u << peer;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t) {
  return cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, nullptr);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call([&](State& now) { return copy(now, to, from, bytes, kind, stream); });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                std::size_t bytes, cudaStream_t stream) {
  return call([&](State& now) {
    const Allocation *target = now.find(to, bytes), *source = now.find(from, bytes);
    if (target == nullptr || source == nullptr || target->device != to_device ||
        source->device != from_device)
      return cudaErrorInvalidValue;
    if (!reaches(now, from_device, *target) && !reaches(now, to_device, *source))
      ++now.counts.staged_copies;
    return copy(now, to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t handle) {
  return call([&](State& now) {
    Stream* stream = now.find(handle);
    const Allocation* block = now.find(to, bytes);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (block == nullptr || block->device < 0) return cudaErrorInvalidValue;
    now.put(*stream, [=] { std::memset(to, value, bytes); }, {1u << block->device, -1});
    return cudaSuccess;
  });
}
