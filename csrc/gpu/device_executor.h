// A market's specs on one device: a call's plan cut into chunks, the chunks' kernels put on a
// stream; a repeated call replayed as a graph.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "gpu/memory.h"
#include "gpu/run_program.h"
#include "gpu/session.h"
#include "gpu/team.h"

namespace marketplace::gpu {

// The specs as every device of a backend runs them.
struct Lowered {
  std::vector<std::shared_ptr<Model>> models;
  std::vector<Program> programs;
};
std::shared_ptr<const Lowered> lower_market(const std::vector<std::shared_ptr<Model>>& models,
                                            const Shape& input_shape, DType dtype);

class DeviceExecutor {
 public:
  // On one device of a team, which keeps the weights.
  DeviceExecutor(std::shared_ptr<const Lowered> lowered, std::shared_ptr<Team> team,
                 std::size_t index);
  // A call that did not wait may still be reading what it was sent.
  ~DeviceExecutor() { stream_.finish(); }
  DeviceExecutor(const DeviceExecutor&) = delete;
  DeviceExecutor& operator=(const DeviceExecutor&) = delete;

  // Puts a call's work on the stream.
  void start_losses(const Request& request);
  void wait() const { stream_.synchronize(); }
  // Once it is done: losses (P,) in the order of the request's plan. Statistics of the rows in
  // Request::leaders go to `leader` where it is given.
  void read_losses(float* losses, LeaderStatistics* leader) const;

  // A whole step, whose kernels a team records with those of its update. Whether there was such a
  // call before: then
  bool knows(const Request& request) const;
  // puts what the call brings in order before the team's stream,
  void bring(const Request& request);
  // and recorded work follows from this key:
  std::vector<std::uint64_t> step_key() const;
  // the kernels, which leave the losses in `published` too (see PublishArgs), and the way of all
  // results to the host, `verdict` among them unless it is null.
  void record_losses(const Stream& stream, float* published);
  void record_fetch(const Stream& stream, const Verdict* verdict) const;
  // Once that is done, beside read_losses:
  Verdict read_verdict() const;

  // out[paths[p]] (B, *output_shape) for each of the plan's paths p; paths nullptr: out[p].
  // order: for the words of an error, see check_incoming.
  void forward(const Request& request, const Output& out, const std::int64_t* paths,
               LeaderStatistics* leader, const std::vector<std::int64_t>* order);

 private:
  void upload_constants();
  Session& session(const Request& request);
  void cut(Session& session, const Plan& plan, std::int64_t budget);
  void make_room(Session& session, const Plan& plan);
  // Everything up to the kernels.
  Session& begin(const Request& request);
  void wait_for_incoming(const Request& request);
  void pack(const Session& session);
  RunArgs chunk_args(const Session& session, const Chunk& chunk, std::int64_t samples) const;
  std::vector<StatisticsPlace> statistics_places(const Session& session, int level) const;
  void run_chunk(const Session& session, const Chunk& chunk, std::int64_t first,
                 std::int64_t samples);
  void sum_losses(const Session& session, const Chunk& chunk, std::int64_t first,
                  std::int64_t samples);
  void run_losses(const Session& session);
  void load(const Session& session, std::int64_t first, std::int64_t samples);
  // A chunk's results: through pinned memory to the host, or to where they stay on a device.
  void fetch_rows(const Session& session, const Chunk& chunk, std::int64_t first,
                  std::int64_t samples, float* out, const std::int64_t* paths);
  void leave_rows(const Session& session, const Chunk& chunk, std::int64_t first,
                  std::int64_t samples, const Output& out, const std::int64_t* paths);
  void fetch_results(const Session& session);
  void check_report(const Session& session, const std::vector<std::int64_t>* order) const;
  void read_statistics(const Session& session, LeaderStatistics* leader) const;

  template <class T>
  T* at(std::int64_t offset) const {
    return reinterpret_cast<T*>(arena_.get<std::byte>() + offset);
  }

  std::shared_ptr<const Lowered> lowered_;
  std::shared_ptr<Team> team_;
  std::shared_ptr<Device> device_;
  const Stream& vectors_;  // of the team
  Stream stream_;
  PinnedMemory staging_, fetched_;
  DeviceMemory arena_;      // of the call that runs; its contents do not outlive it
  DeviceMemory constants_;  // parameter tables and taps of every level
  struct LevelTables {
    std::int64_t parameters, tiles, tile_count, taps;
  };
  std::vector<LevelTables> tables_;
  std::list<Session> sessions_;  // the latest first
  std::int64_t arena_generation_ = 0;
};

}  // namespace marketplace::gpu
