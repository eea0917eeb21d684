// The one door between the algorithm and a device. The algorithm (market/) describes what to run as
// plain data, a device (cpu/, gpu/) runs it. Neither includes the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"
#include "core/vector.h"
#include "graph/model.h"

namespace marketplace {

// Which vendors meet which upstream results: a forest, level i being spec i. Row r of a level runs
// vendor[r] on the result of row parent[r] of the level before; at level 0 parent[r] names an
// input. The rows of the last level are the paths, in the order in which losses are returned.
struct Plan {
  struct Level {
    std::vector<std::int32_t> vendor, parent;
    bool operator==(const Level&) const = default;
  };
  std::vector<Level> levels;
  std::int64_t input_count = 1;
  // Paths of the plan that this is a part of, 0 if of none. Sums over the batch are cut into pieces
  // as that plan's are, so that a loss does not depend on how a plan is shared out.
  std::int64_t whole_path_count = 0;

  std::int64_t path_count() const { return static_cast<std::int64_t>(levels.back().vendor.size()); }
  bool operator==(const Plan&) const = default;
};

// How the vendors of one spec differ from its base weights W. Deltas are described, never stored.
struct VendorWeights {
  enum class Kind {
    base,      // W
    seeded,    // W + uniform(-a, a) from seeds[v], a = seeded_amplitude(v); seed 0 adds nothing
    scaled,    // W + scales[v] * values, values one flat direction (n,)
    explicit_  // values[v], (V, n) instead of W
  };
  Kind kind = Kind::base;
  std::int64_t count = 1;
  std::vector<std::uint64_t> seeds;
  float amplitude = 0;
  std::vector<float> scales;
  std::shared_ptr<const Vector> values;
  // seeded: vendors 2, 4, ... have the seeds of vendors 1, 3, ... and the opposite deltas
  bool antithetic = false;

  // A negative amplitude is the exact negative of the delta: (2a) u - a rounds alike both ways.
  float seeded_amplitude(std::int64_t vendor) const {
    return antithetic && vendor > 0 && vendor % 2 == 0 ? -amplitude : amplitude;
  }
};

// Where an array lies: in the host's memory, or in that of a device which Exchange knows, by index.
inline constexpr int kHost = -1;

// Samples as they arrive: (input_count, B, *sample_shape), row-major.
struct Batch {
  const void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t size = 0;  // B
  Shape sample_shape;
  int device = kHost;
};

// Integers of some width in a device's memory.
struct DeviceIntegers {
  const void* data = nullptr;  // (B,)
  int device = kHost;
  int bytes = 0;  // of one: 1, 2, 4 or 8
  bool is_signed = true;
};

// Numbers in a device's memory, row-major.
enum class NumberKind { signed_, unsigned_, real };
struct DeviceNumbers {
  const void* data = nullptr;
  int device = kHost;
  NumberKind kind = NumberKind::real;
  int bytes = 4;  // of one
};

struct Labels {
  const std::int32_t* data = nullptr;  // (B,); nullptr where a device has them
  std::optional<std::int32_t> ignore_index;
  DeviceIntegers there{};
};

// Where results go, row-major float32.
struct Output {
  Output(float* to) : data(to) {}
  Output(float* to, int where, bool waited_for) : data(to), device(where), waits(waited_for) {}
  float* data = nullptr;
  int device = kHost;
  // On a device: whether the call returns when they are there, or has put all work in order behind
  // Exchange::stream. The values of a batch on a device are checked only by calls that wait.
  bool waits = true;
};

// What to tell of every sample that takes a path of its own; what is null is left out.
struct SampleResults {
  float* out = nullptr;            // (B, *output_shape)
  float* losses = nullptr;         // (B,), cross-entropy; 0 where the label is ignored
  const Labels* labels = nullptr;  // with losses
};

// Per spec, the batch statistics that the first path's vendors (the leader's) met.
using LeaderStatistics = std::vector<std::vector<BatchStatistics>>;

// How losses become scores, the higher the better. z: -(loss - mean) / std with the sample standard
// deviation. rank: from 0.5 for the lowest loss to -0.5 for the highest in equal steps, equal
// losses sharing the mean of theirs (as Salimans et al. 2017).
// sign: of median - loss. best: 1 for the lowest loss, the first of several, 0 for all others; an
// update along the sums of such scores is V1's, and no option of an optimizer.
enum class Shaping { z, rank, sign, best };

// Paths whose losses are scored together.
struct ScoreGroup {
  std::vector<std::int32_t> paths;  // ascending
  bool must_differ = true;          // equal losses tell nothing, which is a fault
  bool operator==(const ScoreGroup&) const = default;
};

// From the losses of all paths to V coefficients per spec: a vendor's is the sum of the scores of
// its paths, as market/coefficients.cpp adds them up, to the bit.
struct Scoring {
  Shaping shaping = Shaping::z;
  std::vector<ScoreGroup> groups;           // one per spec, or one for all of them
  std::vector<std::int32_t> paths;          // (P, S)
  std::vector<std::int64_t> vendor_counts;  // (S,)
  bool operator==(const Scoring&) const = default;
};

// What a whole step does with the losses of its paths.
struct StepUpdate {
  // out (n,) of spec i becomes Backend::combine of its vendors with their coefficients.
  using Combine = std::function<void(std::size_t spec, Vector& out)>;
  Scoring scoring;
  std::function<void(const Combine& combine)> work;  // as for Backend::together
};

// The specs of a market made ready for one input shape on one device.
class Executor {
 public:
  virtual ~Executor() = default;
  // losses (P,): mean cross-entropy of every path over the batch.
  virtual void losses(const Plan& plan, const std::vector<VendorWeights>& weights,
                      const Batch& batch, const Labels& labels, float* losses,
                      LeaderStatistics* leader) = 0;
  // out (P, B, *output_shape), batch statistics in batch norms.
  virtual void forward(const Plan& plan, const std::vector<VendorWeights>& weights,
                       const Batch& batch, const Output& out, LeaderStatistics* leader) = 0;
  // out (B, *output_shape): base weights, running statistics.
  virtual void infer(const Batch& batch, const Output& out) = 0;
  // Sample b runs vendor paths[b, i] of spec i; running statistics.
  virtual void forward_paths(const std::vector<VendorWeights>& weights, const Batch& batch,
                             const std::int32_t* paths, const SampleResults& results) = 0;
  // Losses as above, and at once what follows from them, the host only waiting for the end. Where a
  // loss is not finite, the vectors that `update` changes stay as they are. Returns whether the
  // losses were degenerate; or nothing, where this call should be made step by step: nothing has
  // been done then.
  virtual std::optional<bool> step(const Plan& plan, const std::vector<VendorWeights>& weights,
                                   const Batch& batch, const Labels& labels,
                                   const StepUpdate& update, float* losses,
                                   LeaderStatistics* leader) {
    static_cast<void>(plan), static_cast<void>(weights), static_cast<void>(batch);
    static_cast<void>(labels), static_cast<void>(update), static_cast<void>(losses);
    static_cast<void>(leader);
    return std::nullopt;
  }
};

// Node perturbation of a market with vendor counts V: every channel of every convolution or linear
// layer of a spec is disturbed V - 1 times on every sample, and the losses say which way was up.
struct NodeProbe {
  std::vector<std::vector<std::uint64_t>> seeds;  // per spec (V,); vendor 0 is the leader
  float scale = 0;  // of the noise, relative to the layer's root mean square on the sample
};

class NodeProber {
 public:
  virtual ~NodeProber() = default;
  // The leader's mean loss. gradients: per spec (n,), of the mean loss, zero for what V = 1 leaves
  // alone and for what precedes the first convolution or linear layer of the specs that learn, save
  // the last layer, whose gradient is known in closed form; added to what is there, or instead of
  // it. Nothing has changed when it throws. Labels on the host.
  virtual double probe(const NodeProbe& probe, const Batch& batch, const Labels& labels, bool add,
                       Directions& gradients) = 0;
};

// Memory and streams that a backend's devices share with other libraries, without the host between.
// A stream is its handle (cudaStream_t, hipStream_t). Each device has one of ours, behind which
// calls begin that touch its memory, and which is behind them in turn.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual std::string kind() const = 0;  // "cuda", "hip"
  virtual int leader() const = 0;        // the device that results are left on
  // The device whose memory this is, or kHost.
  virtual int device_of(const void* data) = 0;
  virtual std::uintptr_t stream(int device) = 0;
  // Our stream waits for what is in the other now, and the other way round.
  virtual void wait_for(int device, std::uintptr_t other) = 0;
  virtual void go_before(int device, std::uintptr_t other) = 0;
  // Memory of the leader's. It comes back when the last owner goes, behind what our stream and the
  // device's default stream hold then.
  virtual std::shared_ptr<void> allocate(std::int64_t bytes) = 0;
  // To the leader's memory, in the order of its stream; to the host's, waiting.
  virtual void copy(void* to, const void* from, int from_device, std::int64_t bytes) = 0;
  virtual void copy_to_host(void* to, const void* from, int from_device, std::int64_t bytes) = 0;
  // Of numbers (R, n) the k best of every row to the host: indices (R, k), and the numbers
  // themselves. Which they are market/topk.h says.
  virtual void topk(const DeviceNumbers& numbers, std::int64_t rows, std::int64_t n, std::int64_t k,
                    bool largest, std::int64_t* indices, void* best) = 0;
};

// One step of Adam (Kingma & Ba 2015) for a direction d:
//   mean = b1 mean + (1 - b1) d, square = b2 square + (1 - b2) d^2
//   d = mean_share mean / (sqrt(square_share square) + epsilon)
struct AdamStep {
  float b1 = 0, b2 = 0, mean_share = 1, square_share = 1, epsilon = 0;
};

class Backend : public std::enable_shared_from_this<Backend> {
 public:
  virtual ~Backend() = default;
  virtual std::string device() const = 0;
  virtual DType dtype() const = 0;
  virtual int threads() const = 0;
  // Null where batches and results lie in the host's memory only.
  virtual std::shared_ptr<Exchange> exchange() { return nullptr; }

  virtual std::unique_ptr<Executor> compile(const std::vector<std::shared_ptr<Model>>& models,
                                            const Shape& input_shape) = 0;
  // counts: vendors per spec.
  virtual std::unique_ptr<NodeProber> compile_nodes(
      const std::vector<std::shared_ptr<Model>>& models, const std::vector<std::int64_t>& counts,
      const Shape& input_shape) = 0;

  // Whether its executors take whole steps.
  virtual bool takes_steps() const { return false; }

  // Vectors are computed where this backend computes: nothing of their size crosses to the host.
  // What `work` asks of the functions below is done as one whole, or not at all where a device
  // fails; `work` reads and writes none of those vectors itself.
  virtual void together(const std::function<void()>& work) { work(); }
  // Takes the memory that a vector needs where this backend computes.
  virtual void reserve(const Vector& vector) { static_cast<void>(vector); }
  // A vector outlives this backend: between hold and release it may be kept where this backend
  // computes.
  virtual void hold(const Vector& vector) { static_cast<void>(vector); }
  virtual void release(const Vector& vector) noexcept { static_cast<void>(vector); }
  // out (n,) = sum over v of coefficients[v] * delta_v, summed in the order of v.
  virtual void combine(const Model& model, const VendorWeights& weights,
                       const std::vector<double>& coefficients, Vector& out) = 0;
  // target += scale * values.
  virtual void add_scaled(Vector& target, const Vector& values, float scale) = 0;
  // target = decay * target + values.
  virtual void decay_add(Vector& target, float decay, const Vector& values) = 0;
  virtual void adam(Vector& direction, Vector& mean, Vector& square, const AdamStep& step) = 0;
  // Divides each by its norm, or all by that of all of them together; zeros stay. Sums of squares
  // in float64, in an order that depends on the sizes alone.
  virtual void normalise(Directions& vectors, bool together) = 0;
  // The same norms: what is longer than `length` is cut to it.
  virtual void clip(Directions& vectors, bool together, float length) = 0;
  // The first of the vectors with a value that is infinite or NaN, -1 where none has; not to be
  // asked within `together`.
  virtual std::int64_t first_not_finite(const Directions& vectors) = 0;

  // For benchmarks: floating point operations a second of the matrix kernel on data in cache, all
  // threads, and deltas a second of one thread.
  virtual double measure_peak(double seconds) = 0;
  virtual double measure_random(double seconds) = 0;
};

}  // namespace marketplace
