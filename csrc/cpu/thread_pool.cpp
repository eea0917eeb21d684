#include "cpu/thread_pool.h"

#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"

namespace marketplace::cpu {

int default_threads() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Of one process: threads do not survive a fork, and locks may be left held by some of them. A
// child leaves all that alone, for ever, and makes a crew of its own.
class ThreadPool::Crew {
 public:
  Crew(int threads, const Crew* parents) : threads_(threads), parents_(parents) {}
  ~Crew();

  bool here() const { return owner_ == getpid(); }
  void run(std::int64_t count, const std::function<void(std::int64_t, int)>& task);

 private:
  void start();
  void work(int thread, std::uint64_t seen);
  void drain(int thread);

  const int threads_;
  [[maybe_unused]] const Crew* const parents_;  // so that it is no leak
  const pid_t owner_ = getpid();
  std::vector<std::thread> workers_;
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

ThreadPool::ThreadPool(int threads)
    : threads_(std::max(1, threads)), crew_(new Crew(threads_, nullptr)) {}

ThreadPool::~ThreadPool() {
  Crew* const last = crew_.load();
  if (last->here()) delete last;
}

ThreadPool::Crew& ThreadPool::crew() {
  Crew* known = crew_.load();
  if (known->here()) return *known;
  auto* const made = new Crew(threads_, known);
  if (crew_.compare_exchange_strong(known, made)) return *made;
  delete made;  // another thread of the child was first
  return *known;
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  crew().run(count, task);
}

ThreadPool::Crew::~Crew() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Those that the system refuses are asked for again at the next call.
void ThreadPool::Crew::start() {
  while (static_cast<int>(workers_.size()) + 1 < threads_) {
    const int thread = static_cast<int>(workers_.size()) + 1;
    try {
      workers_.emplace_back([this, thread, seen = round_] { work(thread, seen); });
    } catch (const std::system_error& refused) {
      fail(ErrorKind::runtime, "threads", std::to_string(threads_) + " that the system starts",
           std::string(refused.what()) + " after " + std::to_string(thread));
    }
  }
}

void ThreadPool::Crew::run(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  const std::lock_guard<std::mutex> one_at_a_time(run_mutex_);
  if (count > 1) start();
  const bool shared = count > 1 && !workers_.empty();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    task_ = &task;
    count_ = count;
    next_ = 0;
    error_ = nullptr;
    busy_ = shared ? static_cast<int>(workers_.size()) : 0;
    if (shared) ++round_;
  }
  if (shared) wake_.notify_all();
  drain(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::Crew::drain(int thread) {
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

// seen: the last round that the thread has no part in.
void ThreadPool::Crew::work(int thread, std::uint64_t seen) {
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
