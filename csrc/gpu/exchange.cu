#include "core/error.h"
#include "gpu/exchange.h"
#include "gpu/kernels/topk.h"

namespace marketplace::gpu {
namespace {

std::uintptr_t handle_of(const Stream& stream) {
  return reinterpret_cast<std::uintptr_t>(stream.get());
}

Stream borrowed(std::uintptr_t handle, int device) {
  return Stream::borrow(reinterpret_cast<cudaStream_t>(handle), device);
}

// Memory that other libraries may hold. Whoever lets go of it last may still have work in the
// default stream, which is the only one of theirs that is sure to exist.
struct Block {
  ~Block() {
    try {
      follow(device->doors->at(device->index), borrowed(0, device->index));
    } catch (const Error&) {
      // nobody is left to tell: the context may be gone at exit
    }
  }
  std::shared_ptr<Device> device;
  DeviceMemory memory;
};

class GpuExchange : public Exchange {
 public:
  explicit GpuExchange(std::shared_ptr<Device> leader) : leader_(std::move(leader)) {}

  std::string kind() const override { return kVendor; }
  int leader() const override { return leader_->index; }
  int device_of(const void* data) override { return pointer_device(data); }
  std::uintptr_t stream(int device) override { return handle_of(door(device)); }

  void wait_for(int device, std::uintptr_t other) override {
    follow(door(device), borrowed(other, device));
  }
  void go_before(int device, std::uintptr_t other) override {
    const DeviceGuard guard(device);
    follow(borrowed(other, device), door(device));
  }

  std::shared_ptr<void> allocate(std::int64_t bytes) override {
    const auto block = std::make_shared<Block>();
    block->device = leader_;
    block->memory = leader_->pool.allocate(bytes, door(leader_->index));
    return {block, block->memory.get()};
  }

  void copy(void* to, const void* from, int from_device, std::int64_t bytes) override {
    const Stream& stream = door(leader_->index);
    if (from_device != leader_->index) follow(stream, door(from_device));
    copy_peer(to, leader_->index, from, from_device, bytes, stream);
  }
  void copy_to_host(void* to, const void* from, int from_device, std::int64_t bytes) override {
    gpu::copy_to_host(to, from, bytes, door(from_device));
    door(from_device).synchronize();
  }

  void topk(const DeviceNumbers& numbers, std::int64_t rows, std::int64_t n, std::int64_t k,
            bool largest, std::int64_t* indices, void* best) override {
    const Stream& stream = door(leader_->index);
    const auto room = [&](std::int64_t bytes) { return leader_->pool.allocate(bytes, stream); };
    TopkArgs args{numbers, rows, n, k, largest};
    DeviceMemory brought;
    if (numbers.device != leader_->index) {
      brought = room(rows * n * numbers.bytes);
      copy(brought.get(), numbers.data, numbers.device, brought.bytes());
      args.values.data = brought.get();
    }
    const auto candidates =
        room(rows * candidate_count(n) * static_cast<std::int64_t>(sizeof(Candidate)));
    const DeviceMemory places = room(rows * k * 8), chosen = room(rows * k * numbers.bytes);
    args.candidates = candidates.get<Candidate>();
    args.indices = places.get<std::int64_t>();
    args.best = chosen.get<std::byte>();
    topk_gpu(args, stream);
    gpu::copy_to_host(indices, places.get(), places.bytes(), stream);
    gpu::copy_to_host(best, chosen.get(), chosen.bytes(), stream);
    stream.synchronize();
  }

 private:
  const Stream& door(int device) const { return leader_->doors->at(device); }

  std::shared_ptr<Device> leader_;
};

}  // namespace

std::shared_ptr<Exchange> make_exchange(std::shared_ptr<Device> leader) {
  return std::make_shared<GpuExchange>(std::move(leader));
}

}  // namespace marketplace::gpu
