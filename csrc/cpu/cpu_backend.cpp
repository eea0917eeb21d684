#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/lane_sum.h"
#include "core/threefry.h"
#include "cpu/executor.h"
#include "cpu/measure.h"
#include "cpu/node/prober.h"

namespace marketplace::cpu {
namespace {

constexpr std::int64_t kBlocksPerTask = 1024;  // random blocks, two numbers each
constexpr std::int64_t kValuesPerTask = 65536;
constexpr std::int64_t kValuesPerSum = 4096;  // fixes the order of a sum for any thread count

class CpuBackend : public Backend {
 public:
  CpuBackend(DType dtype, int threads)
      : dtype_(dtype),
        kernels_(active_kernels()),
        pool_(std::make_shared<ThreadPool>(threads > 0 ? threads : default_threads())) {}

  std::string device() const override { return "cpu"; }
  DType dtype() const override { return dtype_; }
  int threads() const override { return pool_->threads(); }

  std::unique_ptr<Executor> compile(const std::vector<std::shared_ptr<Model>>& models,
                                    const Shape& input_shape) override {
    return std::make_unique<CpuExecutor>(models, input_shape, dtype_, kernels_, pool_);
  }

  std::unique_ptr<NodeProber> compile_nodes(const std::vector<std::shared_ptr<Model>>& models,
                                            const std::vector<std::int64_t>& counts,
                                            const Shape& input_shape) override {
    return std::make_unique<CpuNodeProber>(*this, models, counts, input_shape, kernels_, pool_);
  }

  void combine(const Model& model, const VendorWeights& weights,
               const std::vector<double>& coefficients, Vector& out) override {
    float* sums = out.overwrite();
    std::fill_n(sums, out.size(), 0.0f);
    switch (weights.kind) {
      case VendorWeights::Kind::base: return;
      case VendorWeights::Kind::seeded: return combine_seeded(model, weights, coefficients, sums);
      case VendorWeights::Kind::scaled: {
        double scale = 0;
        for (std::int64_t v = 0; v < weights.count; ++v)
          scale += coefficients[v] * weights.scales[v];
        return add_scaled(out, *weights.values, static_cast<float>(scale));
      }
      case VendorWeights::Kind::explicit_:
        fail("direction", "vendors that differ by a delta", "explicit weights");
    }
  }

  std::int64_t first_not_finite(const Directions& vectors) override {
    const auto found = std::find_if(vectors.begin(), vectors.end(), [](const Vector& vector) {
      const float* values = vector.data();
      return !std::all_of(values, values + vector.size(), [](float x) { return std::isfinite(x); });
    });
    return found == vectors.end() ? -1 : found - vectors.begin();
  }

  void add_scaled(Vector& target, const Vector& values, float scale) override {
    float* out = target.data();
    const float* in = values.data();
    in_pieces(target.size(), [&](std::int64_t first, std::int64_t count) {
      kernels_.add_scaled(out + first, in + first, scale, out + first, count);
    });
  }

  void decay_add(Vector& target, float decay, const Vector& values) override {
    float* out = target.data();
    const float* in = values.data();
    in_pieces(target.size(), [&](std::int64_t first, std::int64_t count) {
      decay_add(out + first, decay, in + first, count);
    });
  }

  void adam(Vector& direction, Vector& mean, Vector& square, const AdamStep& step) override {
    float *d = direction.data(), *m = mean.data(), *s = square.data();
    in_pieces(direction.size(), [&](std::int64_t first, std::int64_t count) {
      adam(d + first, m + first, s + first, step, count);
    });
  }

  void normalise(Directions& vectors, bool together) override {
    const std::vector<double> lengths = norms(vectors, together);
    for (std::size_t k = 0; k < vectors.size(); ++k) {
      const auto norm = static_cast<float>(lengths[k]);
      float* values = vectors[k].data();
      in_pieces(vectors[k].size(), [&](std::int64_t first, std::int64_t count) {
        divide(values + first, norm, count);
      });
    }
  }

  void clip(Directions& vectors, bool together, float length) override {
    const std::vector<double> lengths = norms(vectors, together);
    for (std::size_t k = 0; k < vectors.size(); ++k) {
      if (lengths[k] <= length) continue;
      const auto factor = static_cast<float>(length / lengths[k]);
      float* values = vectors[k].data();
      in_pieces(vectors[k].size(), [&](std::int64_t first, std::int64_t count) {
        multiply(values + first, factor, count);
      });
    }
  }

  double measure_peak(double seconds) override {
    return cpu::measure_peak(kernels_, dtype_, *pool_, seconds);
  }
  double measure_random(double seconds) override { return cpu::measure_random(kernels_, seconds); }

 private:
  // Numbers by value: what a closure holds might be what the loop writes, for all the compiler
  // knows.
  static void decay_add(float* out, float decay, const float* in, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = decay * out[i] + in[i];
  }
  static void adam(float* d, float* m, float* s, AdamStep step, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      m[i] = step.b1 * m[i] + (1 - step.b1) * d[i];
      s[i] = step.b2 * s[i] + (1 - step.b2) * d[i] * d[i];
      d[i] = m[i] * step.mean_share / (std::sqrt(s[i] * step.square_share) + step.epsilon);
    }
  }
  static void divide(float* values, float norm, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = norm > 0 ? values[i] / norm : 0.0f;
  }
  static void multiply(float* values, float factor, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) values[i] *= factor;
  }

  // run(first, count) for all of [0, total), on all threads.
  template <class Run>
  void in_pieces(std::int64_t total, Run run) {
    pool_->run((total + kValuesPerTask - 1) / kValuesPerTask, [&](std::int64_t index, int) {
      const std::int64_t first = index * kValuesPerTask;
      run(first, std::min(kValuesPerTask, total - first));
    });
  }

  double squared_norm(const float* values, std::int64_t count) {
    std::vector<double> sums((count + kValuesPerSum - 1) / kValuesPerSum);
    pool_->run(static_cast<std::int64_t>(sums.size()), [&](std::int64_t index, int) {
      const float* piece = values + index * kValuesPerSum;
      const std::int64_t left = count - index * kValuesPerSum;
      sums[index] = lane_sum(std::min(kValuesPerSum, left), [piece](std::int64_t i) {
        return static_cast<double>(piece[i]) * piece[i];
      });
    });
    return lane_sum(static_cast<std::int64_t>(sums.size()),
                    [&](std::int64_t i) { return sums[i]; });
  }

  std::vector<double> norms(const Directions& vectors, bool together) {
    std::vector<double> squares;
    double whole = 0;
    for (const Vector& vector : vectors) {
      squares.push_back(squared_norm(vector.data(), vector.size()));
      whole += squares.back();
    }
    for (double& square : squares) square = std::sqrt(together ? whole : square);
    return squares;
  }

  struct Piece {
    int id;
    std::int64_t first, count;  // blocks
  };

  void combine_seeded(const Model& model, const VendorWeights& weights,
                      const std::vector<double>& coefficients, float* out) {
    std::vector<Piece> pieces;
    for (int id : model.sorted_ids()) {
      if (model.graph().parameters[id].buffer) continue;
      const std::int64_t blocks = block_count(model.size(id));
      for (std::int64_t first = 0; first < blocks; first += kBlocksPerTask)
        pieces.push_back({id, first, std::min(kBlocksPerTask, blocks - first)});
    }
    pool_->run(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t index, int) {
      combine_piece(model, weights, coefficients, pieces[index], out);
    });
  }

  void combine_piece(const Model& model, const VendorWeights& weights,
                     const std::vector<double>& coefficients, const Piece& piece,
                     float* out) const {
    const std::int64_t size = model.size(piece.id), half = block_count(size);
    float* lane0 = out + model.offset(piece.id) + piece.first;
    float* lane1 = lane0 + half;
    // the last block of an odd tensor has no second number
    const bool odd = size % 2 == 1 && piece.first + piece.count == half;
    const std::int64_t full = piece.count - (odd ? 1 : 0);
    float unwanted = 0;
    for (std::int64_t v = 0; v < weights.count; ++v) {
      const auto coefficient = static_cast<float>(coefficients[v]);
      const std::uint64_t seed = weights.seeds[v];
      if (seed == 0 || coefficient == 0) continue;
      const std::uint32_t counter = model.counter(piece.id);
      const float amplitude = weights.seeded_amplitude(v);
      kernels_.accumulate_delta(seed, counter, amplitude, coefficient, half, piece.first, full,
                                lane0, lane1);
      if (odd)
        kernels_.accumulate_delta(seed, counter, amplitude, coefficient, half, piece.first + full,
                                  1, lane0 + full, &unwanted);
    }
  }

  const DType dtype_;
  const KernelTable& kernels_;
  std::shared_ptr<ThreadPool> pool_;
};

}  // namespace

std::shared_ptr<Backend> make_cpu_backend(DType dtype, int threads) {
  return std::make_shared<CpuBackend>(dtype, threads);
}

}  // namespace marketplace::cpu
