#include <doctest/doctest.h>

#include <stdexcept>

#include "cpu/thread_pool.h"

using marketplace::cpu::ThreadPool;

TEST_CASE("every task runs once, whatever the number of threads") {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> seen(round);
      pool.run(round, [&](std::int64_t index, int thread) {
        CHECK(thread < threads);
        ++seen[index];
      });
      for (auto& count : seen) CHECK(count == 1);
    }
  }
}

TEST_CASE("an exception reaches the caller and the pool goes on") {
  ThreadPool pool(3);
  CHECK_THROWS_AS(pool.run(50,
                           [](std::int64_t index, int) {
                             if (index == 17) throw std::runtime_error("task 17");
                           }),
                  std::runtime_error);
  std::atomic<int> count{0};
  pool.run(20, [&](std::int64_t, int) { ++count; });
  CHECK(count == 20);
}
