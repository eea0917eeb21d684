// Flat float32 numbers: on the host, or where a device has changed them since. The host's are a
// mirror then, refreshed when somebody reads them; what devices keep is brought up to date when
// they use it. One writer at a time; readers of the host may come from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace marketplace {

class Vector {
 public:
  // What a backend's devices hold of a vector.
  class Copy {
   public:
    virtual ~Copy() = default;
    // All values to the host, once the devices have come that far.
    virtual void read(float* out) const = 0;

   private:
    friend class Vector;
    std::atomic<std::uint64_t> version_{0};
  };

  Vector() = default;
  explicit Vector(std::int64_t size);  // zeros
  // NOLINTNEXTLINE(google-explicit-constructor): numbers are a vector of them
  Vector(std::vector<float> values);
  Vector(std::initializer_list<float> values) : Vector(std::vector<float>(values)) {}
  Vector(const Vector& other);  // the values alone
  Vector& operator=(const Vector& other) { return *this = Vector(other); }
  Vector(Vector&&) noexcept = default;
  Vector& operator=(Vector&&) noexcept = default;
  ~Vector() = default;

  std::int64_t size() const { return state_ ? state_->size : 0; }
  bool empty() const { return size() == 0; }
  // On the host. Throws where a device that alone had them is gone.
  const float* data() const {
    if (!state_) return nullptr;
    if (!mirrored()) fetch();
    return state_->host.data();
  }
  // The same to be written through, before any other member is called again.
  float* data();
  // To be written as a whole: what was there is not fetched.
  float* overwrite();
  bool operator==(const Vector& other) const;
  // Another number after every change.
  std::uint64_t version() const { return state_ ? state_->version.load() : 0; }

  // -- for backends; of what follows only changed_on changes the values --

  // Nothing but zeros since it was made.
  bool zeros() const { return version() <= kMadeZeros; }
  // The copy that `owner` keeps here, or null. An owner must live as long as its copies.
  std::shared_ptr<Copy> copy(const void* owner) const;
  void keep(const void* owner, std::shared_ptr<Copy> copy) const;
  // Forgets it; the host gets what it alone knew. Should that fail, data() will.
  void drop(const void* owner) const noexcept;
  bool newest(const Copy& copy) const { return copy.version_ == version(); }
  void now_newest(Copy& copy) const { copy.version_ = version(); }
  void changed_on(Copy& copy);

 private:
  static constexpr std::uint64_t kMadeZeros = 1;  // no change leads back to it

  struct State {
    std::int64_t size = 0;
    // Versions alone tell readers that need no lock whether the host's values are there.
    std::atomic<std::uint64_t> version{kMadeZeros}, host_version{0};
    std::mutex mutex;         // of all that follows
    std::vector<float> host;  // empty before anybody asked for it
    std::vector<std::pair<const void*, std::shared_ptr<Copy>>> copies;
  };

  bool mirrored() const { return state_->host_version == state_->version; }
  void fetch() const;
  void fetch_locked() const;

  std::unique_ptr<State> state_;
};

using Directions = std::vector<Vector>;  // per spec (n,)

}  // namespace marketplace
