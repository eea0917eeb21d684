#include "kernel.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "fiber.h"

namespace simt {
namespace {

enum class State { ready, at_barrier, at_collective, finished };

struct Copy {
  void* shared;
  const void* global;
  bool valid;
};

struct Thread {
  Fiber fiber;
  unsigned number = 0;
  State state = State::ready;
  Where where;
  int value = 0;         // handed to a barrier, then the sum
  void* slot = nullptr;  // handed to a collective
  void (*finish)(void* const*) = nullptr;
  std::vector<Copy> open;  // not committed yet
  std::deque<std::vector<Copy>> groups;
};

std::string to_string(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}
bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

// One block at a time; its threads are kept for the next.
class Block {
 public:
  std::string run(const Launch& launch, uint3 index, Random& random);

  Thread& current() { return *current_; }
  std::byte* shared() { return shared_.get(); }
  Random& random() { return *random_; }
  void fail(const std::string& message) {
    if (failure_.empty()) failure_ = message;
  }
  [[noreturn]] void fail_here(const char* message);

 private:
  void start(const Launch& launch);
  void step(Thread& thread);
  void finish_barrier();
  void arrive_at_collective(Thread& thread);
  void finish_collective(unsigned warp);
  std::string describe_deadlock() const;
  void make_ready(unsigned thread) {
    threads_[thread]->state = State::ready;
    ready_.push_back(thread);
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<unsigned> ready_;
  std::vector<int> arrived_;  // per warp
  unsigned count_ = 0, at_barrier_ = 0, finished_ = 0;
  std::unique_ptr<std::byte[]> shared_;
  const Launch* launch_ = nullptr;
  Random* random_ = nullptr;
  Thread* current_ = nullptr;
  std::string failure_;
};

Block& block() {
  static Block block;
  return block;
}

void run_thread(void* launch) {
  static_cast<const Launch*>(launch)->body();
  block().current().state = State::finished;
}

void Block::start(const Launch& launch) {
  launch_ = &launch;
  count_ = launch.block.x * launch.block.y * launch.block.z;
  while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
  ready_.clear();
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = *threads_[i];
    thread.number = i;
    thread.open.clear();
    thread.groups.clear();
    thread.fiber.start(&run_thread, const_cast<Launch*>(&launch));
    make_ready(i);
  }
  arrived_.assign((count_ + kWarpSize - 1) / kWarpSize, 0);
  at_barrier_ = finished_ = 0;
  failure_.clear();
  shared_.reset(new std::byte[launch.shared_bytes]);
  std::memset(shared_.get(), 0xFF, launch.shared_bytes);  // NaN, should it be read unwritten
}

std::string Block::run(const Launch& launch, uint3 index, Random& random) {
  random_ = &random;
  start(launch);
  blockIdx = index;
  while (!ready_.empty() && failure_.empty()) step(*threads_[random.take(ready_)]);
  if (failure_.empty() && finished_ < count_) fail(describe_deadlock());
  if (failure_.empty()) return "";
  return failure_ + " (block " + std::to_string(index.x) + ", thread " +
         std::to_string(current_->number) + ")";
}

// Lets one thread run to where it waits next.
void Block::step(Thread& thread) {
  current_ = &thread;
  const unsigned x = blockDim.x, y = blockDim.y;
  threadIdx = {thread.number % x, thread.number / x % y, thread.number / x / y};
  thread.fiber.resume();
  switch (thread.state) {
    case State::ready: break;  // failed: never resumed
    case State::finished: ++finished_; break;
    case State::at_collective: arrive_at_collective(thread); break;
    case State::at_barrier:
      if (++at_barrier_ == count_) finish_barrier();
      break;
  }
}

void Block::finish_barrier() {
  int sum = 0;
  for (unsigned i = 0; i < count_; ++i) {
    if (!same(threads_[i]->where, threads_[0]->where))
      return fail("divergent barriers: " + to_string(threads_[0]->where) + " and " +
                  to_string(threads_[i]->where));
    sum += threads_[i]->value;
  }
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i]->value = sum;
    make_ready(i);
  }
  at_barrier_ = 0;
}

void Block::arrive_at_collective(Thread& thread) {
  const unsigned warp = thread.number / kWarpSize;
  if (++arrived_[warp] == kWarpSize) finish_collective(warp);
}

void Block::finish_collective(unsigned warp) {
  void* slots[kWarpSize];
  const unsigned first = warp * kWarpSize;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const Thread& thread = *threads_[first + lane];
    slots[lane] = thread.slot;
    if (!same(thread.where, threads_[first]->where) || thread.finish != threads_[first]->finish)
      return fail("divergent warp: lanes at " + to_string(threads_[first]->where) + " and " +
                  to_string(thread.where));
  }
  threads_[first]->finish(slots);
  arrived_[warp] = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) make_ready(first + lane);
}

std::string Block::describe_deadlock() const {
  std::string text = "divergence: " + std::to_string(finished_) + " of " + std::to_string(count_) +
                     " threads have left the kernel";
  for (const State state : {State::at_barrier, State::at_collective}) {
    unsigned waiting = 0;
    const Thread* first = nullptr;
    for (unsigned i = 0; i < count_; ++i) {
      if (threads_[i]->state != state) continue;
      if (first == nullptr) first = threads_[i].get();
      ++waiting;
    }
    if (first != nullptr)
      text += ", " + std::to_string(waiting) + " wait " +
              (state == State::at_barrier ? "for the block at " : "for their warp at ") +
              to_string(first->where);
  }
  return text;
}

void Block::fail_here(const char* message) {
  fail(message);
  current().fiber.leave();
  __builtin_unreachable();
}

void perform(const Copy& copy) {
  if (copy.valid)
    std::memcpy(copy.shared, copy.global, 16);
  else
    std::memset(copy.shared, 0, 16);
}

}  // namespace

std::string run_grid(const Launch& launch, Random& random) {
  gridDim = launch.grid;
  blockDim = launch.block;
  std::vector<std::uint64_t> order(static_cast<std::uint64_t>(launch.grid.x) * launch.grid.y *
                                   launch.grid.z);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  while (!order.empty()) {
    const std::uint64_t number = random.take(order);
    const std::uint64_t row = number / launch.grid.x;
    const uint3 index = {static_cast<unsigned>(number % launch.grid.x),
                         static_cast<unsigned>(row % launch.grid.y),
                         static_cast<unsigned>(row / launch.grid.y)};
    std::string failure = block().run(launch, index, random);
    if (!failure.empty()) return failure;
  }
  return "";
}

void kernel_failure(const char* message) {
  block().fail_here(message);
}

void collective_failure(const char* message) {
  block().fail(message);
}

int block_barrier(int value, const Where& where) {
  Thread& thread = block().current();
  thread.value = value;
  thread.where = where;
  thread.state = State::at_barrier;
  thread.fiber.leave();
  return thread.value;
}

void warp_collective(void* slot, void (*finish)(void* const*), const Where& where) {
  Thread& thread = block().current();
  thread.slot = slot;
  thread.finish = finish;
  thread.where = where;
  thread.state = State::at_collective;
  thread.fiber.leave();
}

std::byte* dynamic_shared_memory() {
  return block().shared();
}

void check_copy(const void* shared, const void* global) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(global) % 16 != 0)
    kernel_failure("a copy between addresses that are not 16-byte aligned");
}

void start_copy(void* shared, const void* global, bool valid) {
  check_copy(shared, global);
  const Copy copy = {shared, global, valid};
  if (block().random().below(2) == 0)
    perform(copy);
  else
    block().current().open.push_back(copy);
}

void commit_copies() {
  Thread& thread = block().current();
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void wait_copies(std::size_t pending_groups) {
  Thread& thread = block().current();
  while (thread.groups.size() > pending_groups) {
    for (const Copy& copy : thread.groups.front()) perform(copy);
    thread.groups.pop_front();
  }
}

}  // namespace simt
