#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "market/coefficients.h"
#include "market/plan.h"

using namespace marketplace;

TEST_CASE("tree coefficients sum z over the paths of a vendor") {
  const Plan plan = tree_plan({2, 2}, {});
  const std::vector<float> losses{1, 2, 3, 6};  // mean 3, sample deviation sqrt(14/3)
  const Coefficients c = direction_coefficients(PlanKind::tree, UnitVectorMode::per_spec,
                                                Shaping::z, losses, plan_paths(plan), {2, 2});
  const double deviation = std::sqrt(14.0 / 3.0);
  CHECK_FALSE(c.degenerate);
  CHECK(c.values[0][0] == doctest::Approx((2 + 0) / deviation));
  CHECK(c.values[0][1] == doctest::Approx((1 - 3) / deviation));
  CHECK(c.values[1][0] == doctest::Approx((2 + 1) / deviation));
  CHECK(c.values[1][1] == doctest::Approx((0 - 3) / deviation));
}

TEST_CASE("a star's per_spec scores look at one spec's deviations alone") {
  const Plan plan = star_plan({2, 3});
  const std::vector<float> losses{2, 9, 1, 3};  // leader; spec 0 v1; spec 1 v1, v2
  const Coefficients c = direction_coefficients(PlanKind::star, UnitVectorMode::per_spec,
                                                Shaping::z, losses, plan_paths(plan), {2, 3});
  CHECK(c.values[0][1] == doctest::Approx(-std::sqrt(0.5)));
  CHECK(c.values[1][1] == doctest::Approx(1.0));
  CHECK(c.values[1][2] == doctest::Approx(-1.0));
}

TEST_CASE("equal losses give zeros and say so") {
  const Plan plan = tree_plan({2, 2}, {});
  const Coefficients c = direction_coefficients(PlanKind::tree, UnitVectorMode::whole, Shaping::z,
                                                {1, 1, 1, 1}, plan_paths(plan), {2, 2});
  CHECK(c.degenerate);
  for (const auto& spec : c.values)
    for (double value : spec) CHECK(value == 0.0);
}

TEST_CASE("coefficients are float32 numbers, so that four bytes keep a step") {
  const Plan plan = tree_plan({3, 2}, {});
  const Coefficients c =
      direction_coefficients(PlanKind::tree, UnitVectorMode::per_spec, Shaping::z,
                             {1, 2, 4, 8, 16, 31}, plan_paths(plan), {3, 2});
  for (const auto& spec : c.values)
    for (double value : spec) CHECK(value == static_cast<double>(static_cast<float>(value)));
}

TEST_CASE("losses that are not finite are named by their paths") {
  const Plan plan = tree_plan({3, 3}, {});
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> losses(9, inf);
  losses[4] = 1;
  CHECK_THROWS_WITH_AS(direction_coefficients(PlanKind::tree, UnitVectorMode::whole, Shaping::z,
                                              losses, plan_paths(plan), {3, 3}),
                       "step: expected finite losses, received inf at path (0, 0), inf at path (1, "
                       "0), inf at path (2, 0), inf at path (0, 1), inf at path (2, 1) and 3 more",
                       Error);
}

TEST_CASE("a loss that is not finite is named by its path") {
  const Plan plan = tree_plan({2, 2}, {});
  const float inf = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(direction_coefficients(PlanKind::tree, UnitVectorMode::whole, Shaping::z,
                                              {1, inf, 1, 1}, plan_paths(plan), {2, 2}),
                       "step: expected finite losses, received inf at path (1, 0)", Error);
  CHECK_THROWS_AS(direction_coefficients(PlanKind::tree, UnitVectorMode::whole, Shaping::z, {1, 2},
                                         {0, 0, 0, 5}, {2, 2}),
                  Error);
}

TEST_CASE("ranks go from 0.5 down to -0.5, equal losses share theirs") {
  const Plan plan = star_plan({5});
  const Coefficients c =
      direction_coefficients(PlanKind::star, UnitVectorMode::per_spec, Shaping::rank,
                             {3, 1, 9, 3, 100}, plan_paths(plan), {5});
  CHECK_FALSE(c.degenerate);
  CHECK(c.values[0] == std::vector<double>{0.125, 0.5, -0.25, 0.125, -0.5});
}

TEST_CASE("signs tell the side of the median") {
  const Plan plan = star_plan({4});
  const auto values = [&](const std::vector<float>& losses) {
    return direction_coefficients(PlanKind::star, UnitVectorMode::whole, Shaping::sign, losses,
                                  plan_paths(plan), {4})
        .values[0];
  };
  CHECK(values({3, 1, 9, 4}) == std::vector<double>{1, 1, -1, -1});
  CHECK(values({1, 1, 9, 1}) == std::vector<double>{0, 0, -1, 0});
}
