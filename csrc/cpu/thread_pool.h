// A fixed set of threads that share out numbered tasks. Which thread runs a task never changes a
// result: tasks write to places of their own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

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
  class Crew;  // the threads, and what they wait with
  Crew& crew();

  const int threads_;
  std::atomic<Crew*> crew_;
};

}  // namespace marketplace::cpu
