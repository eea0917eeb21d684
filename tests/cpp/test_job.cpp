// How a call is cut into tasks.
#include <doctest/doctest.h>

#include <map>

#include "cpu/job.h"
#include "market/plan.h"

using namespace marketplace;
using namespace marketplace::cpu;

namespace {

const std::vector<std::int64_t> kEqualCosts{1000, 1000, 1000};

// How often a child of a root runs, by (root, chunk, place among the children).
std::map<std::vector<std::int64_t>, int> runs_of(const Schedule& schedule) {
  std::map<std::vector<std::int64_t>, int> runs;
  for (const Schedule::Task& task : schedule.tasks)
    for (std::int64_t c = task.first_child; c < task.last_child; ++c)
      ++runs[{task.root, task.chunk, c}];
  return runs;
}

std::int64_t child_count(const Schedule& schedule) {
  return static_cast<std::int64_t>(schedule.children[0].rows.size());
}

}  // namespace

TEST_CASE("every child of every root runs once for every chunk, and one task leads") {
  for (const bool repacks : {false, true})
    for (const int threads : {1, 2, 3, 8, 64})
      for (const Plan& plan : {tree_plan({3, 5, 2}, {}), star_plan({3, 5, 2})}) {
        const Schedule schedule = make_schedule(
            plan, {.blocks = 32, .rows = 32, .repacks = repacks}, kEqualCosts, threads);
        const auto runs = runs_of(schedule);
        CHECK(static_cast<std::int64_t>(runs.size()) == child_count(schedule) * schedule.chunks);
        for (const auto& [place, count] : runs) CHECK(count == 1);
        std::int64_t leading = 0;
        for (const Schedule::Task& task : schedule.tasks) leading += task.leads ? 1 : 0;
        CHECK(leading == 3 * schedule.chunks);
      }
}

TEST_CASE("panels made on demand are packed once, as long as there are children to share out") {
  const Plan plan = star_plan({4, 16, 64});
  for (const int threads : {2, 3, 4, 8}) {
    const Schedule schedule =
        make_schedule(plan, {.blocks = 64, .rows = 64, .repacks = true}, kEqualCosts, threads);
    CHECK(schedule.chunks == 1);
    CHECK(schedule.tasks.size() > 4);
  }
}

TEST_CASE("no thread multiplies a row alone where many samples would share the weights") {
  const Plan one = star_plan({1});
  const auto chunks = [&](std::int64_t rows, int threads) {
    return make_schedule(one, {.blocks = 16, .rows = rows, .repacks = false}, {1000}, threads)
        .chunks;
  };
  CHECK(chunks(1, 8) == 1);
  CHECK(chunks(16, 2) == 2);
  CHECK(chunks(16, 8) == 4);
  CHECK(chunks(130, 2) == 4);        // not five for two
  CHECK(chunks(16 * 400, 2) == 16);  // a convolution has rows enough in every sample
}

TEST_CASE("a great many roots are not cut at all") {
  for (const bool repacks : {false, true}) {
    const Schedule schedule = make_schedule(
        tree_plan({30000}, {}), {.blocks = 16, .rows = 64, .repacks = repacks}, {1000}, 2);
    CHECK(schedule.chunks == 1);
    CHECK(schedule.tasks.size() == 30000);
  }
}
