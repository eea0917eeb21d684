// Several devices in one process: the same bits as one.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "gpu/checksum.h"
#include "gpu/executor.h"
#include "gpu/schedule.h"
#include "gpu_markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

struct Answer {
  std::vector<float> losses, logits;
  LeaderStatistics leader;
};

// What a market gives as a tree and as a star: at first, then as graphs, with new weights each
// time.
std::vector<Answer> answers(const Models& models, const std::vector<std::int64_t>& counts,
                            const Batch& batch, const Labels& labels, int devices) {
  const auto market = on_gpu(models, DType::bfloat16, first(devices));
  const auto weights = seeded(counts);
  std::vector<Answer> all;
  for (const Plan& plan : {tree_plan(counts, {}), star_plan(counts)})
    for (int repeat = 0; repeat < 3; ++repeat) {
      models[0]->values()[repeat] += 0.25f;  // new weights reach every device
      Answer answer;
      answer.losses = losses_of(*market, plan, weights, batch, labels, &answer.leader);
      answer.logits.resize(plan.path_count() * batch.size * 3);
      market->forward(plan, weights, batch, answer.logits.data());
      all.push_back(std::move(answer));
    }
  return all;
}

std::vector<Answer> answers_of_all(int devices) {
  const SmallBatch dense;
  const Images images;
  std::vector<Answer> all =
      answers(dense_models(), {3, 3, 4}, dense.batch(), dense.labels(), devices);
  for (const bool batch_norm : {false, true})
    for (Answer& answer :
         answers(image_models(batch_norm), {3, 5}, images.batch(), images.labels(), devices))
      all.push_back(std::move(answer));
  return all;
}

void check_answer(const Answer& ours, const Answer& theirs) {
  CHECK(ours.losses == theirs.losses);
  CHECK(ours.logits == theirs.logits);
  REQUIRE(ours.leader.size() == theirs.leader.size());
  for (std::size_t i = 0; i < ours.leader.size(); ++i) {
    REQUIRE(ours.leader[i].size() == theirs.leader[i].size());
    for (std::size_t k = 0; k < ours.leader[i].size(); ++k) {
      CHECK(ours.leader[i][k].mean == theirs.leader[i][k].mean);
      CHECK(ours.leader[i][k].variance == theirs.leader[i][k].variance);
    }
  }
}

void check_same(const std::vector<Answer>& ours, const std::vector<Answer>& theirs) {
  REQUIRE(ours.size() == theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) check_answer(ours[i], theirs[i]);
}

}  // namespace

TEST_CASE("two and four devices, with peer access and without, give the bits of one") {
  simt::reset(machine(1));
  const std::vector<Answer> expected = answers_of_all(1);
  for (const bool peers : {true, false})
    for (const int devices : {2, 3, 4}) {
      simt::Machine wanted = machine(devices, static_cast<std::uint64_t>(devices));
      wanted.peer_access = peers;
      simt::reset(wanted);
      check_same(answers_of_all(devices), expected);
      CHECK((simt::counts().staged_copies == 0) == peers);
    }
  simt::reset(machine(1));
}

TEST_CASE("more devices than paths") {
  simt::reset(machine(4));
  {
    const SmallBatch data;
    check_same(answers(dense_models(), {1, 1, 2}, data.batch(), data.labels(), 4),
               answers(dense_models(), {1, 1, 2}, data.batch(), data.labels(), 1));
  }
  simt::reset(machine(1));
}

TEST_CASE("weights that have drifted apart are found") {
  simt::reset(machine(2));
  {
    std::vector<std::shared_ptr<gpu::Device>> devices;
    for (int d = 0; d < 2; ++d)
      devices.push_back(std::make_shared<gpu::Device>(d, DType::float32, 0));
    const auto team = std::make_shared<gpu::Team>(devices);
    const Vector vector{1, 2, 3, 4, 5}, other{0.5f};
    const std::vector held{team->bring(other), team->bring(vector)};
    CHECK_NOTHROW(gpu::compare_devices(*team, held));
    const float changed = 4 * 1.0000002f;
    gpu::copy_to_device_now(held[1]->at(1) + 3, &changed, 4, team->stream(1));
    CHECK_THROWS_WITH_AS(gpu::compare_devices(*team, held), doctest::Contains("on device 1"),
                         Error);
  }
  simt::reset(machine(1));
}

TEST_CASE("a device that is missing or named twice is refused") {
  CHECK_THROWS_WITH_AS(gpu::make_gpu_backend({1}, DType::float32, 0), doctest::Contains("cuda:1"),
                       Error);
  CHECK_THROWS_WITH_AS(gpu::make_gpu_backend({0, 0}, DType::float32, 0), doctest::Contains("twice"),
                       Error);
  CHECK_THROWS_AS(gpu::make_gpu_backend({}, DType::float32, 0), Error);
}

TEST_CASE("parts of a plan cover every path once, and none takes much longer than its share") {
  for (const Plan& plan : {tree_plan({8, 4, 4}, {}), star_plan({8, 40, 64})})
    for (std::int64_t count : {2, 3, 4}) {
      const auto parts = gpu::split_plan(plan, {1000, 300, 10}, count, leader_rows(plan));
      REQUIRE(static_cast<std::int64_t>(parts.size()) == count);
      const auto paths = plan_paths(plan);
      std::vector<int> seen(plan.path_count(), 0);
      std::vector<double> costs;
      int leaders = 0;
      for (const Part& part : parts) {
        const auto mine = plan_paths(part.plan);
        for (std::size_t p = 0; p < part.paths.size(); ++p) {
          ++seen[part.paths[p]];
          for (int i = 0; i < 3; ++i) CHECK(mine[p * 3 + i] == paths[part.paths[p] * 3 + i]);
        }
        double cost = 0;
        for (int i = 0; i < 3; ++i) {
          cost += (i == 0   ? 1000.0
                   : i == 1 ? 300.0
                            : 10.0) *
                  static_cast<double>(part.plan.levels[i].vendor.size());
          leaders += part.leaders[i] >= 0;
        }
        costs.push_back(cost);
      }
      CHECK(std::count(seen.begin(), seen.end(), 1) == plan.path_count());
      CHECK(leaders == 3);
      // the slowest part is what everyone waits for
      const double all = std::accumulate(costs.begin(), costs.end(), 0.0);
      CHECK(*std::max_element(costs.begin(), costs.end()) * static_cast<double>(count) < 1.2 * all);
    }
}
