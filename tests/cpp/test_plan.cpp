#include <doctest/doctest.h>

#include "core/error.h"
#include "market/plan.h"

using namespace marketplace;

TEST_CASE("a tree's paths are vendor-major from the last spec backwards") {
  const Plan plan = tree_plan({2, 3}, {});
  CHECK(plan.path_count() == 6);
  CHECK(plan_paths(plan) == std::vector<std::int32_t>{0, 0, 1, 0, 0, 1, 1, 1, 0, 2, 1, 2});
}

TEST_CASE("a star shares prefixes: sum of V - 1, plus the leader") {
  const Plan plan = star_plan({2, 3, 1});
  CHECK(plan.path_count() == 4);
  CHECK(plan_paths(plan) == std::vector<std::int32_t>{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 2, 0});
  CHECK(plan.levels[0].vendor.size() == 2);
  CHECK(plan.levels[1].vendor.size() == 4);
}

TEST_CASE("sampled upstreams choose the parents") {
  const Plan plan = tree_plan({3, 2}, {{}, {2, 0, 1, 2}});
  CHECK(plan_paths(plan) == std::vector<std::int32_t>{2, 0, 0, 0, 1, 1, 2, 1});
}

TEST_CASE("plans that do not fit their vendors are refused") {
  VendorWeights one;
  const Plan plan = star_plan({2, 2});
  CHECK_THROWS_WITH_AS(check_plan(plan, {one, one}), doctest::Contains("below 1"), Error);
  CHECK_THROWS_AS(check_plan(plan, {one}), Error);
  CHECK_THROWS_AS(star_plan({2, 0}), Error);
  CHECK_THROWS_AS(tree_plan({}, {}), Error);
}

TEST_CASE("a plan too large to enumerate is a memory error, not a crash") {
  try {
    tree_plan({70000, 70000}, {});
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::memory);
  }
}
