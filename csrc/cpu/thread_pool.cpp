#include "cpu/thread_pool.h"

#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>

namespace marketplace::cpu {

int default_threads() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)) {}

ThreadPool::~ThreadPool() {
  if (owner_ != getpid()) {
    // the parent's threads: nothing of them runs here, and joining would wait for ever
    for (std::thread& worker : workers_) worker.detach();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::start() {
  if (owner_ == getpid()) return;
  for (std::thread& worker : workers_) worker.detach();
  workers_.clear();
  owner_ = getpid();
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  const std::lock_guard<std::mutex> one_at_a_time(run_mutex_);
  if (threads_ > 1 && count > 1) start();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    task_ = &task;
    count_ = count;
    next_ = 0;
    error_ = nullptr;
    busy_ = count > 1 ? static_cast<int>(workers_.size()) : 0;
    if (busy_ > 0) ++round_;
  }
  if (busy_ > 0) wake_.notify_all();
  drain(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::drain(int thread) {
  for (;;) {
    const std::int64_t index = next_.fetch_add(1);
    if (index >= count_) return;
    try {
      (*task_)(index, thread);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_ = count_;  // no further tasks
    }
  }
}

void ThreadPool::work(int thread) {
  std::uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
    }
    drain(thread);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace marketplace::cpu
