// Random sequences of calls with right and wrong arguments on one market and two optimizers: every
// call returns, a status other than MP_OK has a text, and results lie within their buffers.
#include <marketplace.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "input.h"

namespace {

constexpr int kMostCalls = 60, kMostSeeds = 64;
constexpr std::int64_t kMostPaths = 256, kMostSamples = 8;

void require(bool condition) {
  if (!condition) std::abort();
}

class Session {
 public:
  explicit Session(Input& input) : in_(input) { check(mp_market_create(&market_)); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    require(mp_market_free(market_) == MP_OK);
    for (mp_optimizer* optimizer : optimizers_) require(mp_optimizer_free(optimizer) == MP_OK);
  }

  void run() {
    for (int i = 0; i < kMostCalls && !in_.empty(); ++i) {
      const int choice = in_.below(28);
      if (choice < 14)
        build(choice);
      else
        use(choice);
    }
  }

 private:
  void check(mp_status status) {
    require(status >= MP_OK && status < MP_INTERNAL_ERROR);
    require(status == MP_OK || std::strlen(mp_last_error()) > 0);
  }

  mp_value value() { return in_.below(4) != 0 ? last_ : in_.below(12) - 1; }
  const char* key() {
    static const char* const keys[] = {nullptr, "layers.0", "", "a b", "layers.1", "x"};
    const int choice = in_.below(32);
    return keys[choice < 6 ? choice : 0];
  }
  void pair(std::int64_t (&target)[2]) {
    for (std::int64_t& extent : target) extent = in_.extent();
  }
  std::size_t size(std::size_t usual) { return in_.below(16) == 0 ? in_.byte() * 32u : usual; }

  // A struct whose declared size is never beyond what there is.
  template <class T>
  struct Room {
    T options{};
    unsigned char more[8192] = {};
  };

  void build(int choice) {
    mp_value x = value();
    switch (choice) {
      case 0: {
        const std::int64_t vendors = in_.extent();
        check(mp_add_spec(market_, vendors, in_.below(4)));
        last_ = MP_INPUT;
        return;
      }
      case 1: conv2d(&x); break;
      case 2: linear(&x); break;
      case 3: norm(&x); break;
      case 4: check(mp_activation(market_, x, in_.below(7) - 1, &x)); break;
      case 5: pool(&x); break;
      case 6: {
        const std::int64_t axes[] = {in_.below(6) - 2, in_.below(6) - 2};
        check(mp_flatten(market_, x, axes[0], axes[1], &x));
        break;
      }
      case 7: {
        const std::int64_t last = in_.coin() ? -1 : in_.extent();
        const std::int64_t shape[] = {in_.extent(), in_.extent(), last, 1};
        check(mp_reshape(market_, x, shape, in_.below(5) - 1, &x));
        break;
      }
      case 8: {
        const std::int64_t axes[] = {in_.below(6) - 2, in_.below(6) - 2};
        const std::int32_t count = in_.below(3);
        check(mp_mean(market_, x, axes, count, in_.coin(), &x));
        break;
      }
      case 9: check(mp_add(market_, x, value(), &x)); break;
      case 10: check(mp_multiply(market_, x, value(), &x)); break;
      case 11: {
        const float scale = in_.number();
        check(mp_affine(market_, x, scale, in_.number(), &x));
        break;
      }
      case 12: check(mp_set_output(market_, x)); return;
      default: finish(); return;
    }
    last_ = x;
  }

  void conv2d(mp_value* x) {
    Room<mp_conv2d_options> room;
    mp_conv2d_options& options = room.options;
    options.size = size(sizeof options);
    options.key = key();
    options.in_channels = in_.extent();
    options.out_channels = in_.extent();
    pair(options.kernel);
    pair(options.stride);
    for (std::int64_t& margin : options.padding) margin = in_.padding();
    pair(options.dilation);
    options.groups = in_.below(4);
    options.no_bias = in_.coin();
    check(mp_conv2d(market_, *x, &options, x));
  }

  void linear(mp_value* x) {
    Room<mp_linear_options> room;
    mp_linear_options& options = room.options;
    options.size = size(sizeof options);
    options.key = key();
    options.in_features = in_.extent();
    options.out_features = in_.extent();
    options.no_bias = in_.coin();
    check(mp_linear(market_, *x, &options, x));
  }

  void norm(mp_value* x) {
    Room<mp_norm_options> room;
    mp_norm_options& options = room.options;
    options.size = size(sizeof options);
    options.key = key();
    options.eps = in_.number();
    options.momentum = in_.number();
    options.no_affine = in_.coin();
    const mp_norm_options* given = in_.coin() ? &options : nullptr;
    const int kind = in_.below(3);
    const std::int64_t shape[] = {in_.extent(), in_.extent()};
    if (kind == 0) check(mp_instance_norm(market_, *x, shape[0], given, x));
    if (kind == 1) check(mp_batch_norm(market_, *x, shape[0], given, x));
    if (kind == 2) check(mp_layer_norm(market_, *x, shape, in_.below(3), given, x));
  }

  void pool(mp_value* x) {
    Room<mp_pool2d_options> room;
    mp_pool2d_options& options = room.options;
    options.size = size(sizeof options);
    pair(options.kernel);
    pair(options.stride);
    for (std::int64_t& margin : options.padding) margin = in_.padding();
    pair(options.dilation);
    options.exclude_pad = in_.coin();
    const mp_pool2d_options* given = in_.coin() ? &options : nullptr;
    check(in_.coin() ? mp_max_pool2d(market_, *x, given, x) : mp_avg_pool2d(market_, *x, given, x));
  }

  void finish() {
    static const char* const devices[] = {"cpu", "cpu", "cpu", "", "cpu,cpu", "cuda:99"};
    Room<mp_device_options> room;
    mp_device_options& options = room.options;
    options.size = size(sizeof options);
    options.device = devices[in_.below(6)];
    options.dtype = in_.below(4) == 0 ? "bfloat16" : nullptr;
    options.threads = 1;
    check(mp_market_finish(market_, &options));
  }

  void use(int choice) {
    switch (choice) {
      case 14: check(mp_market_initialize(market_, in_.byte())); break;
      case 15: weights(); break;
      case 16: output_shape(); break;
      case 17: infer(); break;
      case 18: topk(); break;
      case 19: optimizer(); break;
      case 20:
      case 21: probe(mp_probe); break;
      case 24: probe(mp_accumulate); break;
      case 25: update(mp_add_replica); break;
      case 26: keep_best(); break;
      case 27: rates(); break;
      default: update(mp_step); break;
    }
  }

  void weights() {
    std::int64_t count = 0, shape[2] = {in_.extent(), in_.extent()};
    const std::int64_t spec = in_.below(5) - 1;
    check(mp_parameter_count(market_, spec, &count));
    mp_parameter parameter{};
    parameter.size = sizeof parameter;
    const mp_status status = mp_get_parameter(market_, spec, in_.below(6) - 1, &parameter);
    check(status);
    if (status != MP_OK) return;
    std::vector<float> values(parameter.count);
    check(mp_get_weights(market_, spec, parameter.key, values.data(), parameter.count));
    values.resize(std::max<std::size_t>(values.size(), 64 * 64));
    for (float& value : values) value = in_.empty() ? 0.5f : in_.number();
    const bool own = in_.coin();
    const mp_tensor tensor =
        own ? mp_host_tensor(values.data(), MP_DTYPE_FLOAT, 32, parameter.ndim, parameter.shape)
            : mp_host_tensor(values.data(), in_.below(4), 32, in_.below(3), shape);
    check(mp_set_weights(market_, spec, parameter.key, &tensor));
  }

  void output_shape() {
    const std::int64_t shape[] = {in_.extent(), in_.extent(), in_.extent(), 1};
    std::int64_t out[4];
    std::int32_t ndim = in_.below(6) - 1;
    if (ndim > 4) ndim = 4;
    check(mp_output_shape(market_, shape, in_.below(5) - 1, out, &ndim));
  }

  // x (B, ...) of up to 8 x 8 x 8 x 8 elements.
  mp_tensor batch() {
    for (std::int64_t& extent : x_shape_) extent = 1 + in_.below(kMostSamples);
    x_data_.assign(8 * 8 * 8 * 8 * 4, 0);
    in_.fill(x_data_.data(), 16);
    mp_tensor x = mp_host_tensor(x_data_.data(), MP_DTYPE_FLOAT, 32, 1 + in_.below(4), x_shape_);
    if (in_.coin()) x.dtype_code = MP_DTYPE_UINT, x.dtype_bits = 8;
    if (in_.below(32) == 0) x.device_type = in_.below(16);
    if (in_.below(32) == 0) x_shape_[in_.below(4)] = in_.extent() & ~std::int64_t{7};
    if (in_.below(32) == 0) x.strides = x_shape_;
    return x;
  }

  void infer() {
    const mp_tensor x = batch();
    std::vector<float> out(4096);
    std::int64_t shape[16], count = x_shape_[0];
    std::int32_t ndim = 16;
    const mp_status status = mp_output_shape(market_, x.shape + 1, x.ndim - 1, shape, &ndim);
    check(status);
    if (status != MP_OK) ndim = 0;
    for (std::int32_t i = 0; i < ndim; ++i)
      if (__builtin_mul_overflow(count, shape[i], &count)) return;
    if (count < 0 || count > 4096) return;
    check(mp_infer(market_, &x, out.data(), count + (in_.below(16) == 0)));
  }

  void topk() {
    float values[16], best[16];
    std::int64_t indices[16];
    in_.fill(values, sizeof values);
    const int count = in_.below(17), k = in_.below(19) - 1;
    check(mp_topk(values, count, k, in_.coin(), best, indices));
  }

  void optimizer() {
    Room<mp_optimizer_options> room;
    mp_optimizer_options& options = room.options;
    options.size = size(sizeof options);
    options.seed = in_.byte();
    options.plan = in_.below(6) - 1;
    options.update = in_.below(7) - 1;
    options.shaping = in_.below(5) - 1;
    options.unit_vector_mode = in_.below(5) - 1;
    options.learning_rate = in_.number();
    options.probe_scale = in_.number();
    options.momentum = in_.coin() ? 0 : in_.number();
    options.antithetic = in_.below(4) == 0;
    options.control_variate = in_.below(4) == 0;
    options.use_ignore_index = in_.coin();
    options.ignore_index = in_.below(4);
    options.meta_learning_rate = in_.below(4) == 0 ? in_.number() : 0;
    static const std::uint64_t seeds[kMostSeeds] = {0, 1, 2, 3, 3};
    if (in_.below(8) == 0) options.seeds = seeds;
    if (options.seeds != nullptr) options.seed_count = in_.below(kMostSeeds + 1);
    mp_optimizer*& slot = optimizers_[in_.below(2)];
    check(mp_optimizer_free(slot));
    slot = nullptr;
    check(mp_optimizer_create(market_, &options, &slot));
  }

  void probe(decltype(mp_probe)* run) {
    mp_optimizer* optimizer = optimizers_[in_.below(2)];
    const mp_tensor x = batch();
    std::int64_t labels[kMostSamples];
    for (std::int64_t& label : labels) label = in_.below(5) - (in_.below(32) == 0);
    const std::int64_t shape[] = {x_shape_[0] > 8 ? 8 : x_shape_[0]};
    const mp_tensor y = mp_host_tensor(labels, MP_DTYPE_INT, 64, 1, shape);
    std::int64_t room = 0;
    const mp_status status = mp_path_count(optimizer, shape[0], &room);
    check(status);
    if (status != MP_OK || room > kMostPaths) return;
    losses_.assign(room, 0);
    paths_.assign(room * 16, 0);
    probed_ = room;
    check(run(optimizer, &x, &y, losses_.data(), paths_.data(), &probed_));
    require(probed_ >= 0 && probed_ <= room);
  }

  // What was probed, now and then with something else among it.
  mp_optimizer* scored() {
    losses_.resize(kMostPaths);
    paths_.resize(kMostPaths * 16);
    if (in_.below(8) == 0) losses_[in_.byte()] = in_.number();
    if (in_.below(8) == 0) paths_[in_.byte()] = in_.byte() - 64;
    return optimizers_[in_.below(2)];
  }

  void update(decltype(mp_step)* run) {
    std::int32_t degenerate = 0;
    mp_optimizer* optimizer = scored();
    const float rate = in_.number();
    check(run(optimizer, losses_.data(), paths_.data(), probed_, rate, &degenerate));
  }

  void keep_best() {
    std::int64_t best = 0;
    mp_optimizer* optimizer = scored();
    const float rate = in_.number();
    const float* losses = losses_.data();
    const mp_status status = mp_keep_best(optimizer, losses, paths_.data(), probed_, rate, &best);
    check(status);
    require(status != MP_OK || (best >= 0 && best < probed_));
  }

  void rates() {
    mp_optimizer* optimizer = optimizers_[in_.below(2)];
    float found[16];
    switch (in_.below(4)) {
      case 0: check(mp_drop_replicas(optimizer)); break;
      case 1: check(mp_set_probe_scale(optimizer, in_.number())); break;
      case 2: check(mp_set_meta_learning_rate(optimizer, in_.number())); break;
      default: check(mp_get_learning_rates(optimizer, found, in_.below(17))); break;
    }
  }

  Input& in_;
  mp_market* market_ = nullptr;
  mp_optimizer* optimizers_[2] = {nullptr, nullptr};
  mp_value last_ = MP_INPUT;
  std::vector<std::uint8_t> x_data_;
  std::int64_t x_shape_[4] = {1, 1, 1, 1};
  std::vector<float> losses_;
  std::vector<std::int32_t> paths_;
  std::int64_t probed_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Session(input).run();
  return 0;
}
