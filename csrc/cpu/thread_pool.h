// A fixed set of threads that share out numbered tasks. Which thread runs a task never changes a
// result: tasks write to places of their own.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace marketplace::cpu {

// Cores that this process may run on.
int default_threads();

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // task(index, thread) for every index below `count`, in order of index as threads come free; the
  // caller is thread 0. The first exception is rethrown here once all threads have stopped.
  void run(std::int64_t count, const std::function<void(std::int64_t, int)>& task);

 private:
  void start();
  void work(int thread);
  void drain(int thread);

  const int threads_;
  std::vector<std::thread> workers_;
  pid_t owner_ = 0;  // threads do not survive a fork; the child starts its own
  std::mutex run_mutex_, mutex_;
  std::condition_variable wake_, done_;
  std::uint64_t round_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  const std::function<void(std::int64_t, int)>* task_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::exception_ptr error_;
};

}  // namespace marketplace::cpu
