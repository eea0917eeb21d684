// setp: comparisons into predicates.
#include "operations.h"

namespace ptx {
namespace {

template <class T, class F>
Operation comparison(F) {
  return [](Warp& warp, const Instruction& instruction) {
    const T *a = warp.lanes<T>(instruction, 1), *b = warp.lanes<T>(instruction, 2);
    std::uint32_t bits = 0;
    for (int lane = 0; lane < kLanes; ++lane)
      bits |= static_cast<std::uint32_t>(F{}(a[lane], b[lane])) << lane;
    set_predicate(warp, warp.predicate(instruction, 0), bits);
  };
}

// Of numbers: false where one is NaN. C++ gives that for all but !=.
template <class T>
void add_ordered(Operations& operations, const std::string& type) {
  operations["setp.eq." + type] = comparison<T>([](T a, T b) { return a == b; });
  operations["setp.ne." + type] = comparison<T>([](T a, T b) { return a < b || a > b; });
  operations["setp.lt." + type] = comparison<T>([](T a, T b) { return a < b; });
  operations["setp.le." + type] = comparison<T>([](T a, T b) { return a <= b; });
  operations["setp.gt." + type] = comparison<T>([](T a, T b) { return a > b; });
  operations["setp.ge." + type] = comparison<T>([](T a, T b) { return a >= b; });
}

// True where one is NaN.
template <class T>
void add_unordered(Operations& operations, const std::string& type) {
  operations["setp.equ." + type] = comparison<T>([](T a, T b) { return !(a < b || a > b); });
  operations["setp.neu." + type] = comparison<T>([](T a, T b) { return a != b; });
  operations["setp.ltu." + type] = comparison<T>([](T a, T b) { return !(a >= b); });
  operations["setp.leu." + type] = comparison<T>([](T a, T b) { return !(a > b); });
  operations["setp.gtu." + type] = comparison<T>([](T a, T b) { return !(a <= b); });
  operations["setp.geu." + type] = comparison<T>([](T a, T b) { return !(a < b); });
  operations["setp.num." + type] = comparison<T>([](T a, T b) { return a == a && b == b; });
  operations["setp.nan." + type] = comparison<T>([](T a, T b) { return a != a || b != b; });
}

template <class U>
void add_integers(Operations& operations, const std::string& bits) {
  add_ordered<U>(operations, "u" + bits);
  add_ordered<U>(operations, "b" + bits);
  add_ordered<std::make_signed_t<U>>(operations, "s" + bits);
}

template <class T>
void add_floats(Operations& operations, const std::string& type) {
  add_ordered<T>(operations, type);
  add_unordered<T>(operations, type);
}

}  // namespace

void add_comparisons(Operations& operations) {
  add_integers<std::uint16_t>(operations, "16");
  add_integers<std::uint32_t>(operations, "32");
  add_integers<std::uint64_t>(operations, "64");
  add_floats<float>(operations, "f32");
  add_floats<double>(operations, "f64");
}

}  // namespace ptx
