#include <algorithm>
#include <atomic>

#include "core/error.h"
#include "gpu/team.h"

namespace marketplace::gpu {
namespace {

constexpr std::size_t kKeptRecordings = 4;
constexpr std::size_t kAlignment = 256;  // of a task's arguments

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::uint64_t unique_number() {
  static std::atomic<std::uint64_t> last{std::uint64_t{1} << 32};  // above all kinds of tasks
  return ++last;
}

Resident::Resident(std::shared_ptr<Team> team, std::int64_t count)
    : team_(std::move(team)), count_(count), memory_(team_->size()), valid_(team_->size(), 0) {}

std::size_t Resident::source() const {
  return static_cast<std::size_t>(std::find(valid_.begin(), valid_.end(), 1) - valid_.begin());
}

void Resident::read(float* out) const {
  const std::size_t from = source();
  copy_to_host(out, at(from), count_ * 4, team_->stream(from));
  team_->stream(from).synchronize();
}

Team::Team(std::vector<std::shared_ptr<Device>> devices)
    : devices_(std::move(devices)), arguments_(devices_.size()), scratch_(devices_.size()) {
  for (const auto& device : devices_) {
    streams_.emplace_back(device->index);
    recorders_.emplace_back(device->index);
    taken_.emplace_back(device->index);
  }
}

Team::~Team() {
  // graphs may still run; nobody is left to tell where a device was lost
  for (const Stream& stream : streams_) static_cast<void>(cudaStreamSynchronize(stream.get()));
}

std::shared_ptr<Resident> Team::resident(const Vector& vector) {
  const auto guard = lock();
  if (auto found = vector.copy(this)) return std::static_pointer_cast<Resident>(found);
  auto made = std::make_shared<Resident>(shared_from_this(), vector.size());
  vector.keep(this, made);
  return made;
}

std::shared_ptr<Resident> Team::reserve(const Vector& vector) {
  const auto guard = lock();
  auto found = resident(vector);
  for (std::size_t d = 0; d < size(); ++d)
    if (found->memory_[d].bytes() == 0)
      found->memory_[d] = devices_[d]->pool.allocate(found->count_ * 4, streams_[d]);
  return found;
}

std::shared_ptr<Resident> Team::bring(const Vector& vector) {
  const auto guard = lock();
  auto found = reserve(vector);
  if (found->written_) return found;
  if (!vector.newest(*found)) upload(vector, *found);
  heal(*found);
  return found;
}

// To the first device, zeros to all; a device that fails is left for `heal`.
void Team::upload(const Vector& vector, Resident& resident) {
  std::fill(resident.valid_.begin(), resident.valid_.end(), 0);
  const std::int64_t bytes = resident.count_ * 4;
  if (vector.zeros()) {
    for (std::size_t d = 0; d < size(); ++d) fill_bytes(resident.at(d), 0, bytes, streams_[d]);
    std::fill(resident.valid_.begin(), resident.valid_.end(), 1);
  } else {
    copy_to_device_now(resident.at(0), vector.data(), bytes, streams_[0]);
    resident.valid_[0] = 1;
  }
  vector.now_newest(resident);
}

// Devices that did not come through the last change get the values of one that did.
void Team::heal(Resident& resident) {
  const std::size_t from = resident.source();
  for (std::size_t d = 0; d < size(); ++d) {
    if (resident.valid_[d] != 0) continue;
    follow(streams_[d], streams_[from]);
    copy_peer(resident.at(d), devices_[d]->index, resident.at(from), devices_[from]->index,
              resident.count_ * 4, streams_[d]);
    follow(streams_[from], streams_[d]);
    resident.valid_[d] = 1;
  }
}

std::shared_ptr<Resident> Team::change(Vector& vector) {
  return note_change(vector, bring(vector));
}

std::shared_ptr<Resident> Team::overwrite(Vector& vector) {
  return note_change(vector, reserve(vector));
}

std::shared_ptr<Resident> Team::note_change(Vector& vector, std::shared_ptr<Resident> resident) {
  if (!resident->written_) changes_.push_back({&vector, resident});
  resident->written_ = true;
  return resident;
}

void Team::hold(const Vector& vector) {
  const auto guard = lock();
  ++resident(vector)->holders_;
}

void Team::release(const Vector& vector) noexcept {
  const auto guard = lock();
  const auto found = std::static_pointer_cast<Resident>(vector.copy(this));
  if (found && --found->holders_ == 0) vector.drop(this);
}

void Team::together(const std::function<void()>& work) {
  const auto guard = lock();
  if (gathering_) return work();
  gathering_ = true;
  try {
    work();
    run();
  } catch (...) {
    forget();
    throw;
  }
  forget();
}

void Team::add(Task task) {
  task.verdicts = verdicts_;
  tasks_.push_back(std::move(task));
}

void Team::meet(std::function<void()> exchange) {
  Task task;
  task.meet = std::move(exchange);
  add(std::move(task));
}

void Team::obey(std::vector<const Verdict*> verdicts) {
  verdicts_ = std::move(verdicts);
}

void Team::wait() const {
  for (const Stream& stream : streams_) stream.synchronize();
}

void Team::forget() {
  for (const Change& change : changes_) change.resident->written_ = false;
  changes_.clear();
  tasks_.clear();
  verdicts_.clear();
  gathering_ = false;
}

const std::byte* Team::fetch(std::size_t device, const DeviceMemory& from) {
  const auto guard = lock();
  std::byte* to = fetched_.reserve(from.bytes());
  copy_to_host(to, from.get(), from.bytes(), streams_[device]);
  streams_[device].synchronize();
  return to;
}

// Into the block, once no device copies from it any more: a host that is not waiting for losses may
// be a step ahead.
std::int64_t Team::write_arguments() {
  std::size_t bytes = 0;
  for (const Task& task : tasks_) bytes += aligned(task.arguments.size());
  for (const Event& taken : taken_) taken.synchronize();
  std::byte* to = block_.reserve(static_cast<std::int64_t>(bytes));
  for (const Task& task : tasks_) {
    std::copy(task.arguments.begin(), task.arguments.end(), to);
    to += aligned(task.arguments.size());
  }
  return static_cast<std::int64_t>(bytes);
}

// Everything that can fail for want of memory or for a wrong launch comes before the first device
// starts.
void Team::run() {
  if (tasks_.empty()) return;
  const std::int64_t bytes = write_arguments();
  std::int64_t scratch = 0;
  for (const Task& task : tasks_) scratch = std::max(scratch, task.scratch_bytes);
  grow(arguments_, bytes);
  grow(scratch_, scratch);
  start(recording(), bytes);
  for (const Change& change : changes_) {
    std::fill(change.resident->valid_.begin(), change.resident->valid_.end(), 1);
    change.vector->changed_on(*change.resident);
  }
}

// Where a device does not start, those before it are no longer valid: what they computed is
// forgotten, once they have done it.
void Team::start(const Recording& recording, std::int64_t argument_bytes) {
  std::size_t changed = 0;
  try {
    for (std::size_t d = 0; d < size(); ++d) {
      copy_to_device(arguments_[d].get(), block_.get(), argument_bytes, streams_[d]);
      taken_[d].record(streams_[d]);
    }
    launch(recording, changed);
  } catch (...) {
    for (const Change& change : changes_) std::fill_n(change.resident->valid_.begin(), changed, 0);
    for (const Stream& stream : streams_) static_cast<void>(cudaStreamSynchronize(stream.get()));
    throw;
  }
}

// changed: how many devices have begun the graphs that change vectors, the last ones.
void Team::launch(const Recording& recording, std::size_t& changed) {
  auto graphs = recording.graphs.begin();
  const auto start_graphs = [&] {
    const bool last = graphs + 1 == recording.graphs.end();
    for (std::size_t d = 0; d < size(); ++d) {
      (*graphs)[d].launch(streams_[d]);
      if (last) ++changed;
    }
    ++graphs;
  };
  for (const Task& task : tasks_) {
    if (!task.meet) continue;
    start_graphs();
    task.meet();
  }
  start_graphs();
}

// Recordings know where the old block was.
void Team::grow(std::vector<DeviceMemory>& memory, std::int64_t bytes) {
  for (std::size_t d = 0; d < size(); ++d) {
    if (memory[d].bytes() >= bytes) continue;
    wait();  // a recording has a graph of every device, and any of them may still run
    recordings_.clear();
    devices_[d]->pool.renew(memory[d], 2 * bytes, streams_[d]);
  }
}

std::vector<std::uint64_t> Team::recording_key() const {
  std::vector<std::uint64_t> key;
  const auto add_pointer = [&](const void* pointer) {
    key.push_back(reinterpret_cast<std::uintptr_t>(pointer));
  };
  for (const Task& task : tasks_) {
    key.push_back(task.key.size());
    key.insert(key.end(), task.key.begin(), task.key.end());
    key.push_back(task.arguments.size());
    for (const Verdict* verdict : task.verdicts) add_pointer(verdict);
    for (const auto& vector : task.vectors)
      for (std::size_t d = 0; d < size(); ++d) add_pointer(vector->at(d));
  }
  return key;
}

Team::Recording& Team::recording() {
  std::vector<std::uint64_t> key = recording_key();
  const auto found = std::find_if(recordings_.begin(), recordings_.end(),
                                  [&](const Recording& each) { return each.key == key; });
  if (found != recordings_.end()) {
    recordings_.splice(recordings_.begin(), recordings_, found);
    return recordings_.front();
  }
  Recording made{std::move(key), record()};
  if (recordings_.size() >= kKeptRecordings) {
    wait();  // it may still run
    recordings_.pop_back();
  }
  recordings_.push_front(std::move(made));
  return recordings_.front();
}

std::vector<std::vector<Graph>> Team::record() const {
  std::vector<std::vector<Graph>> graphs;
  for (std::size_t first = 0, end = 0; end <= tasks_.size(); ++end) {
    if (end < tasks_.size() && !tasks_[end].meet) continue;
    graphs.emplace_back();
    for (std::size_t d = 0; d < size(); ++d) graphs.back().push_back(record(d, first, end));
    first = end + 1;
  }
  return graphs;
}

Graph Team::record(std::size_t device, std::size_t first, std::size_t end) const {
  const DeviceGuard guard(devices_[device]->index);
  const Stream& stream = recorders_[device];
  return Graph::capture(stream, [&] {
    const auto* arguments = arguments_[device].get<std::byte>();
    for (std::size_t t = 0; t < end; ++t) {
      const Task& task = tasks_[t];
      const Verdict* verdict = task.verdicts.empty() ? nullptr : task.verdicts[device];
      if (t >= first)
        task.launch({device, stream, arguments, scratch_[device].get<std::byte>(), verdict});
      arguments += aligned(task.arguments.size());
    }
  });
}

Reading::Reading(const Stream& vectors, const Stream& reader)
    : vectors_(vectors), reader_(reader), event_(vectors.device()) {
  event_.record(vectors_);
  reader_.wait(event_);
}

Reading::~Reading() {
  // fails on a lost device alone, whose vectors nobody will use again
  static_cast<void>(cudaEventRecord(event_.get(), reader_.get()));
  static_cast<void>(cudaStreamWaitEvent(vectors_.get(), event_.get(), 0));
}

}  // namespace marketplace::gpu
