// The devices of a backend as one: vectors that each of them holds whole, and the same work done to
// them on each, so that all stay equal to the bit and none has to tell the others. Work is gathered
// first, then brought to every device as one graph: recorded once, replayed for every step that
// differs in numbers alone. Where devices must hear from one another in between, as many graphs as
// that takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "core/vector.h"
#include "gpu/device.h"
#include "gpu/kernels/verdict.h"

namespace marketplace::gpu {

class Team;

// Where a spec's parameters are, and their random numbers, per device; made with the first
// direction.
struct DeltaTables {
  std::vector<DeviceMemory> memory;
  std::int64_t tile_count = 0, parameters_at = 0;
};

// A vector on every device of a team.
class Resident : public Vector::Copy {
 public:
  Resident(std::shared_ptr<Team> team, std::int64_t count);
  float* at(std::size_t device) const { return memory_[device].get<float>(); }
  std::int64_t count() const { return count_; }
  void read(float* out) const override;
  DeltaTables& deltas() { return deltas_; }  // beside a model's weights

 private:
  friend class Team;
  std::size_t source() const;  // the first device whose values count

  std::shared_ptr<Team> team_;  // its streams outlive the memory
  std::int64_t count_;
  DeltaTables deltas_;
  std::vector<DeviceMemory> memory_;  // per device, empty before first use
  std::vector<char> valid_;           // per device, whether it came through the last change
  bool written_ = false;              // by work that has been gathered only
  int holders_ = 0;
};

// What a task finds on a device.
struct OnDevice {
  std::size_t device;
  const Stream& stream;
  const std::byte* arguments;  // the task's own
  std::byte* scratch;          // of one task at a time
  const Verdict* verdict;      // that decides whether vectors change, or null
};

// A task's launches must follow from its key, the vectors that it names, its verdicts and the size
// of its arguments: they are what a recorded graph is found by.
struct Task {
  std::vector<std::uint64_t> key;
  std::vector<std::shared_ptr<Resident>> vectors;
  std::vector<std::byte> arguments;  // brought to the device
  std::int64_t scratch_bytes = 0;
  std::function<void(const OnDevice&)> launch;
  std::function<void()> meet;              // instead of launches, see Team::meet
  std::vector<const Verdict*> verdicts{};  // per device; none: nothing holds it back
};

// For keys: never the same again.
std::uint64_t unique_number();

class Team : public std::enable_shared_from_this<Team> {
 public:
  explicit Team(std::vector<std::shared_ptr<Device>> devices);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  std::size_t size() const { return devices_.size(); }
  const std::shared_ptr<Device>& device(std::size_t index) const { return devices_[index]; }
  // On which the vectors of a device are ordered.
  const Stream& stream(std::size_t index) const { return streams_[index]; }

  // What the devices keep of a vector: made when it is first asked for; with its memory; with its
  // newest values on every device; with its values about to be changed by a task. Never for an
  // empty vector.
  std::shared_ptr<Resident> resident(const Vector& vector);
  std::shared_ptr<Resident> reserve(const Vector& vector);
  std::shared_ptr<Resident> bring(const Vector& vector);
  std::shared_ptr<Resident> change(Vector& vector);     // what was there counts
  std::shared_ptr<Resident> overwrite(Vector& vector);  // it does not
  // Keeps what devices have of a vector until the last holder releases it.
  void hold(const Vector& vector);
  void release(const Vector& vector) noexcept;

  // Gathers the tasks that `work` adds, then has every device do them; or none, where anything
  // fails. Vectors live until the end. Of nested calls the outermost counts.
  void together(const std::function<void()>& work);
  void add(Task task);
  // What the devices do with one another when all have done the tasks before: puts work on their
  // streams, between two graphs. The tasks before change no vectors.
  void meet(std::function<void()> exchange);
  // Tasks that are added from now on change vectors only where these verdicts, one per device and
  // all the same, are for it.
  void obey(std::vector<const Verdict*> verdicts);
  // Until all devices have done what they were given.
  void wait() const;
  // A few bytes of a device's memory, in the order of its stream, once they are on the host; they
  // stay until the next call.
  const std::byte* fetch(std::size_t device, const DeviceMemory& from);

  // One thread at a time.
  std::unique_lock<std::recursive_mutex> lock() { return std::unique_lock(mutex_); }

 private:
  struct Recording {
    std::vector<std::uint64_t> key;
    std::vector<std::vector<Graph>> graphs;  // between two meetings, per device
  };
  struct Change {
    Vector* vector;
    std::shared_ptr<Resident> resident;
  };

  void upload(const Vector& vector, Resident& resident);
  void heal(Resident& resident);
  std::shared_ptr<Resident> note_change(Vector& vector, std::shared_ptr<Resident> resident);
  void run();
  void start(const Recording& recording, std::int64_t argument_bytes);
  void launch(const Recording& recording, std::size_t& changed);
  void forget();
  std::int64_t write_arguments();
  void grow(std::vector<DeviceMemory>& memory, std::int64_t bytes);
  Recording& recording();
  std::vector<std::uint64_t> recording_key() const;
  std::vector<std::vector<Graph>> record() const;
  Graph record(std::size_t device, std::size_t first, std::size_t end) const;

  std::recursive_mutex mutex_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::vector<Stream> streams_, recorders_;
  std::vector<DeviceMemory> arguments_, scratch_;  // per device
  PinnedMemory block_, fetched_;                   // arguments on their way, answers
  std::vector<Event> taken_;                       // per device: its copy of the block is made
  std::list<Recording> recordings_;                // the latest first
  bool gathering_ = false;
  std::vector<Task> tasks_;
  std::vector<const Verdict*> verdicts_;
  std::vector<Change> changes_;
};

// While it lives, what a reader's stream is given comes behind all that was done to the vectors
// before, and what is done to them later comes behind that.
class Reading {
 public:
  Reading(const Stream& vectors, const Stream& reader);
  ~Reading();
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  const Stream &vectors_, &reader_;
  Event event_;
};

}  // namespace marketplace::gpu
