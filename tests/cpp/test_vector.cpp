// Vectors whose newest values are with a device.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "core/vector.h"

using namespace marketplace;

namespace {

struct FakeCopy : Vector::Copy {
  std::vector<float> values;
  bool lost = false;
  mutable int reads = 0;
  void read(float* out) const override {
    if (lost) fail(ErrorKind::runtime, "copy", "success", "a lost device");
    ++reads;
    std::copy(values.begin(), values.end(), out);
  }
};

std::shared_ptr<FakeCopy> keep_copy(const Vector& vector, const void* owner) {
  auto copy = std::make_shared<FakeCopy>();
  copy->values.assign(vector.size(), 7.0f);
  vector.keep(owner, copy);
  return copy;
}

}  // namespace

TEST_CASE("a vector of nothing and a vector of zeros") {
  Vector none;
  CHECK(none.size() == 0);
  CHECK(none.data() == nullptr);
  CHECK(none.overwrite() == nullptr);
  CHECK(none == Vector(0));
  const Vector made(3);
  CHECK(made.zeros());
  CHECK(made == Vector{0, 0, 0});
  CHECK(made.zeros());                // whoever asked for them
  CHECK_FALSE(Vector(made).zeros());  // a copy of values, whatever they are
  CHECK_FALSE(Vector{1, 2} == Vector{1, 2, 3});
}

TEST_CASE("what a device changed is fetched once, and what the host writes is newer") {
  Vector vector{1, 2, 3};
  const int owner = 0;
  const auto copy = keep_copy(vector, &owner);
  CHECK(vector.copy(&owner) == copy);
  CHECK(vector.copy(&vector) == nullptr);
  CHECK_FALSE(vector.newest(*copy));
  vector.now_newest(*copy);
  CHECK(vector.newest(*copy));
  CHECK(std::as_const(vector).data()[0] == 1);
  CHECK(copy->reads == 0);
  const std::uint64_t before = vector.version();
  vector.changed_on(*copy);
  CHECK(vector.version() != before);
  CHECK(std::as_const(vector).data()[0] == 7);
  CHECK(std::as_const(vector).data()[2] == 7);
  CHECK(copy->reads == 1);
  CHECK(vector.newest(*copy));
  vector.data()[1] = 5;
  CHECK_FALSE(vector.newest(*copy));
  CHECK(vector == Vector{7, 5, 7});
}

TEST_CASE("several threads read what nobody has read before") {
  for (int round = 0; round < 50; ++round) {
    const Vector made(1000);
    Vector changed(1000);
    changed.changed_on(*keep_copy(changed, &changed));
    std::vector<float> sums(4);
    std::vector<std::thread> readers;
    for (float& sum : sums)
      readers.emplace_back([&] { sum = made.data()[999] + std::as_const(changed).data()[999]; });
    for (std::thread& reader : readers) reader.join();
    CHECK(sums == std::vector<float>(4, 7.0f));
  }
}

TEST_CASE("what is overwritten is not fetched") {
  Vector vector(2);
  const auto copy = keep_copy(vector, &vector);
  vector.changed_on(*copy);
  CHECK_FALSE(vector.zeros());
  std::fill_n(vector.overwrite(), 2, 4.0f);
  CHECK(vector == Vector{4, 4});
  CHECK(copy->reads == 0);
}

TEST_CASE("a copy that ends leaves its values to the host") {
  Vector vector(2);
  vector.changed_on(*keep_copy(vector, &vector));
  const Vector same = vector;
  vector.drop(&vector);
  vector.drop(&vector);
  CHECK(vector.copy(&vector) == nullptr);
  CHECK(vector == Vector{7, 7});
  CHECK(same == vector);
  CHECK(same.copy(&vector) == nullptr);
}

TEST_CASE("values that went with their device are not made up") {
  Vector vector{1, 2};
  const auto copy = keep_copy(vector, &vector);
  vector.changed_on(*copy);
  copy->lost = true;
  CHECK_THROWS_WITH_AS(vector.data(), doctest::Contains("lost device"), Error);
  vector.drop(&vector);
  CHECK_THROWS_WITH_AS(vector.data(), doctest::Contains("it was lost"), Error);
  std::fill_n(vector.overwrite(), 2, 3.0f);
  CHECK(vector == Vector{3, 3});
}
