#include "core/vector.h"

#include <algorithm>

#include "core/error.h"

namespace marketplace {

Vector::Vector(std::int64_t size) : state_(std::make_unique<State>()) {
  state_->size = size;
}

Vector::Vector(std::vector<float> values) : Vector(static_cast<std::int64_t>(values.size())) {
  state_->host = std::move(values);
  state_->host_version = ++state_->version;
}

Vector::Vector(const Vector& other)
    : Vector(std::vector<float>(other.data(), other.data() + other.size())) {}

float* Vector::data() {
  if (!state_) return nullptr;
  static_cast<void>(std::as_const(*this).data());
  state_->host_version = ++state_->version;
  return state_->host.data();
}

float* Vector::overwrite() {
  if (!state_) return nullptr;
  const std::lock_guard lock(state_->mutex);
  state_->host.resize(static_cast<std::size_t>(state_->size));
  state_->host_version = ++state_->version;
  return state_->host.data();
}

bool Vector::operator==(const Vector& other) const {
  return std::equal(data(), data() + size(), other.data(), other.data() + other.size());
}

std::shared_ptr<Vector::Copy> Vector::copy(const void* owner) const {
  if (!state_) return nullptr;
  const std::lock_guard lock(state_->mutex);
  for (const auto& [whose, copy] : state_->copies)
    if (whose == owner) return copy;
  return nullptr;
}

void Vector::keep(const void* owner, std::shared_ptr<Copy> copy) const {
  const std::lock_guard lock(state_->mutex);
  state_->copies.emplace_back(owner, std::move(copy));
}

void Vector::drop(const void* owner) const noexcept {
  if (!state_) return;
  const std::lock_guard lock(state_->mutex);
  const auto mine = std::find_if(state_->copies.begin(), state_->copies.end(),
                                 [&](const auto& each) { return each.first == owner; });
  if (mine == state_->copies.end()) return;
  try {
    fetch_locked();
  } catch (...) {
    // nobody is left to tell: the device may be lost
  }
  state_->copies.erase(mine);
}

void Vector::changed_on(Copy& copy) {
  copy.version_ = ++state_->version;
}

void Vector::fetch() const {
  const std::lock_guard lock(state_->mutex);
  fetch_locked();
}

void Vector::fetch_locked() const {
  const std::uint64_t newest = state_->version;
  const auto count = static_cast<std::size_t>(state_->size);
  if (state_->host_version == newest) return;
  if (newest == kMadeZeros) {
    state_->host.assign(count, 0.0f);
    state_->host_version = newest;
    return;
  }
  const auto holder =
      std::find_if(state_->copies.begin(), state_->copies.end(),
                   [&](const auto& each) { return each.second->version_ == newest; });
  if (holder == state_->copies.end())
    fail(ErrorKind::runtime, "values", "the device that changed them last", "none: it was lost");
  state_->host.resize(count);
  holder->second->read(state_->host.data());
  state_->host_version = newest;
}

}  // namespace marketplace
