// A call like the one before allocates nothing: every new of this program is counted.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "market/plan.h"
#include "market/seeds.h"
#include "markets.h"

using namespace marketplace;
using namespace marketplace::tests;

namespace {

std::atomic<std::int64_t> allocations{0};

template <class Call>
std::int64_t count_allocations(Call call) {
  call();
  const std::int64_t before = allocations;
  call();
  return allocations - before;
}

}  // namespace

void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes > 0 ? bytes : 1);
}
void* operator new(std::size_t bytes) {
  if (void* memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}

TEST_CASE("allocations are counted") {
  CHECK(count_allocations(
            [] { std::vector<float>(100).swap(*std::make_unique<std::vector<float>>()); }) == 2);
}

TEST_CASE("an executor's repeated call allocates nothing") {
  for (const int threads : {1, 2})
    for (const char* dtype : {"float32", "bfloat16"}) {
      const auto backend = make_backend("cpu", dtype, threads);
      const std::vector<std::shared_ptr<Model>> models{
          linear_model(7, 33, true, 1), linear_model(33, 5, true, 2), linear_model(5, 3, false, 3)};
      const auto executor = backend->compile(models, {7});
      const std::vector<std::int64_t> counts{2, 3, 4};
      std::vector<VendorWeights> weights;
      for (int i = 0; i < 3; ++i)
        weights.push_back({VendorWeights::Kind::seeded,
                           counts[i],
                           derive_seeds(9, 0, i, counts[i], true),
                           0.1f,
                           {},
                           {}});
      const SmallBatch data;
      const Batch batch = data.batch();
      const Labels labels = data.labels();
      std::vector<float> out(24 * 13 * 3);
      for (const Plan& plan : {tree_plan(counts, {}), star_plan(counts)}) {
        CHECK(count_allocations([&] {
                executor->losses(plan, weights, batch, labels, out.data(), nullptr);
              }) == 0);
        CHECK(count_allocations(
                  [&] { executor->forward(plan, weights, batch, out.data(), nullptr); }) == 0);
      }
      CHECK(count_allocations([&] { executor->infer(batch, out.data()); }) == 0);
      const std::vector<std::int32_t> paths(13 * 3, 1);
      CHECK(count_allocations([&] {
              executor->forward_paths(weights, batch, paths.data(), {out.data(), nullptr, nullptr});
            }) == 0);
    }
}
