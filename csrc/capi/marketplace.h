/*
 * The C interface of Marketplace: build a market layer by layer, train it with forward passes only,
 * infer, save and load. C99, no C++ and no Python in sight; docs/embedding.md is the guide.
 *
 * Errors.     Every call that can fail returns an mp_status. After anything but MP_OK,
 *             mp_last_error() says "op: expected ..., received ..." and nothing has changed, save
 *             that a buffer given for results may hold anything. No call throws, prints or aborts.
 * Ownership.  Handles belong to the caller and are freed by mp_market_free, mp_optimizer_free.
 *             Inputs (strings, shapes, tensors, options) are borrowed for the call. Results go to
 *             buffers of the caller, whose lengths are given and checked.
 * Threads.    One call at a time on a market and the optimizers made from it; different markets are
 *             independent. mp_last_error() is the calling thread's. Results do not depend on the
 *             number of threads that the engine uses.
 * Options.    Structs begin with their own size, so that they can grow: set `size`, leave what you
 *             do not need zero, which always means the default. What is unknown must be zero.
 * Shapes.     Row-major. B samples, C channels, H height, W width, O outputs, V vendors, P paths,
 *             S specs. A sample's shape leaves B out.
 */
#ifndef MARKETPLACE_H
#define MARKETPLACE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MP_API __attribute__((visibility("default")))
#else
#define MP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when a program has to be compiled anew; the number in the library's soname. */
#define MP_ABI_VERSION 1

typedef int32_t mp_status;
enum {
  MP_OK = 0,
  MP_INVALID_VALUE = 1, /* a wrong value, shape, key or file content */
  MP_INVALID_TYPE = 2,  /* a wrong dtype, or memory that is not the host's */
  MP_RUNTIME_ERROR = 3, /* a call at the wrong time, or a device that fails */
  MP_OUT_OF_MEMORY = 4,
  MP_FILE_ERROR = 5, /* a file that cannot be opened, read or written */
  MP_INTERNAL_ERROR = 6
};

/* The text of this thread's last error; empty before the first. Valid until the next error. */
MP_API const char* mp_last_error(void);
/* "0.1.0": the version of the library in use. */
MP_API const char* mp_version(void);
/* MP_ABI_VERSION of the library in use; compare it with the header's if you open it yourself. */
MP_API int32_t mp_abi_version(void);

/* ---- tensors --------------------------------------------------------------------------------- */

/*
 * A borrowed array, laid out as DLPack's DLTensor: a `DLTensor *` may be cast to `mp_tensor *`.
 * Host memory (device_type 1, 3 or 11), lanes 1, C-contiguous (strides may be NULL).
 */
typedef struct mp_tensor {
  const void* data;
  int32_t device_type; /* DLDevice; 1 is the CPU */
  int32_t device_id;
  int32_t ndim;
  uint8_t dtype_code; /* DLDataType: 0 signed integer, 1 unsigned integer, 2 float */
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  const int64_t* shape;
  const int64_t* strides; /* in elements */
  uint64_t byte_offset;
} mp_tensor;

enum { MP_DTYPE_INT = 0, MP_DTYPE_UINT = 1, MP_DTYPE_FLOAT = 2 };

/* Describes contiguous host memory; both pointers must outlive the tensor's use. */
static inline mp_tensor mp_host_tensor(const void* data, uint8_t dtype_code, uint8_t dtype_bits,
                                       int32_t ndim, const int64_t* shape) {
  mp_tensor tensor;
  tensor.data = data;
  tensor.device_type = 1;
  tensor.device_id = 0;
  tensor.ndim = ndim;
  tensor.dtype_code = dtype_code;
  tensor.dtype_bits = dtype_bits;
  tensor.dtype_lanes = 1;
  tensor.shape = shape;
  tensor.strides = NULL;
  tensor.byte_offset = 0;
  return tensor;
}

/* ---- devices --------------------------------------------------------------------------------- */

typedef struct mp_device {
  size_t size;           /* in: sizeof(mp_device) */
  char name[64];         /* "cpu", "cuda:0" */
  char kind[16];         /* "cpu", "cuda", "hip" */
  char description[160]; /* instruction set, or the device's own name */
  int32_t threads;       /* host threads that work for it */
  int32_t reserved;
} mp_device;

/* How many devices can be used on this machine; the CPU is number 0. */
MP_API mp_status mp_device_count(int32_t* count);
MP_API mp_status mp_get_device(int32_t index, mp_device* device);

/* ---- building a market ----------------------------------------------------------------------- */

typedef struct mp_market mp_market;

/* A value that flows through a spec; MP_INPUT is what enters it. */
typedef int32_t mp_value;
#define MP_INPUT 0

MP_API mp_status mp_market_create(mp_market** market);
/* NULL is allowed. Optimizers keep what they need of a market that is freed. */
MP_API mp_status mp_market_free(mp_market* market);

/*
 * Begins a spec, a group of layers that `vendor_count` vendors share (1 to 2^20). The layers that
 * follow belong to it. upstream_sampling: how many results of the spec before each vendor takes in
 * plan tree; 0 for all of them.
 */
MP_API mp_status mp_add_spec(mp_market* market, int64_t vendor_count, int64_t upstream_sampling);

/*
 * Layers add one value to the newest spec and give its number in *out; x is an earlier value of
 * that spec (`out` may point to x's variable). The spec's result is its last value unless
 * mp_set_output names another.
 *
 * key: the layer's name, in front of its parameters' keys: "layers.0" gives "layers.0.weight". By
 * default "layers.N", where N values were added to the spec before: Python's keys of a
 * `marketplace.nn.Model` whose layers stand in a row.
 */
typedef struct mp_conv2d_options {
  size_t size;
  const char* key;
  int64_t in_channels, out_channels; /* no default */
  int64_t kernel[2];                 /* (height, width); no default */
  int64_t stride[2];                 /* 0: 1 */
  int64_t padding[2];                /* zeros around the image */
  int64_t dilation[2];               /* 0: 1 */
  int64_t groups;                    /* 0: 1 */
  int32_t no_bias;
  int32_t reserved;
} mp_conv2d_options;

/* x (B, C, H, W); weight (O, C / groups, kh, kw), bias (O,). */
MP_API mp_status mp_conv2d(mp_market* market, mp_value x, const mp_conv2d_options* options,
                           mp_value* out);

typedef struct mp_linear_options {
  size_t size;
  const char* key;
  int64_t in_features, out_features; /* no default */
  int32_t no_bias;
  int32_t reserved;
} mp_linear_options;

/* x (B, ..., I) -> (B, ..., O); weight (O, I), bias (O,). */
MP_API mp_status mp_linear(mp_market* market, mp_value x, const mp_linear_options* options,
                           mp_value* out);

typedef struct mp_norm_options {
  size_t size;
  const char* key;
  double eps;        /* 0: 1e-5 */
  double momentum;   /* batch norm: share of the newest batch in the running statistics; 0: 0.1 */
  int32_t no_affine; /* without weight and bias */
  int32_t reserved;
} mp_norm_options;

/* options may be NULL. weight and bias (C,); batch norms also keep running_mean, running_var (C,)
 * and num_batches_tracked (), which are never perturbed. */
MP_API mp_status mp_instance_norm(mp_market* market, mp_value x, int64_t channels,
                                  const mp_norm_options* options, mp_value* out);
MP_API mp_status mp_batch_norm(mp_market* market, mp_value x, int64_t channels,
                               const mp_norm_options* options, mp_value* out);
/* Over the last ndim axes, of extents `shape`; weight and bias have that shape. */
MP_API mp_status mp_layer_norm(mp_market* market, mp_value x, const int64_t* shape, int32_t ndim,
                               const mp_norm_options* options, mp_value* out);

typedef int32_t mp_activation_kind;
enum { MP_RELU = 0, MP_GELU = 1, MP_GELU_TANH = 2, MP_SIGMOID = 3, MP_TANH = 4 };
MP_API mp_status mp_activation(mp_market* market, mp_value x, mp_activation_kind kind,
                               mp_value* out);

typedef struct mp_pool2d_options {
  size_t size;
  int64_t kernel[2];   /* 0: 2 */
  int64_t stride[2];   /* 0: the kernel */
  int64_t padding[2];  /* at most half the kernel */
  int64_t dilation[2]; /* 0: 1 */
  int32_t exclude_pad; /* average: divide by what lies in the image alone */
  int32_t reserved;
} mp_pool2d_options;

/* x (B, C, H, W); options may be NULL. */
MP_API mp_status mp_max_pool2d(mp_market* market, mp_value x, const mp_pool2d_options* options,
                               mp_value* out);
MP_API mp_status mp_avg_pool2d(mp_market* market, mp_value x, const mp_pool2d_options* options,
                               mp_value* out);

/* Axes count the batch as axis 0, which stays; negative ones count from the end: (1, -1). */
MP_API mp_status mp_flatten(mp_market* market, mp_value x, int64_t start, int64_t end,
                            mp_value* out);
/* shape: a sample's, one extent may be -1. */
MP_API mp_status mp_reshape(mp_market* market, mp_value x, const int64_t* shape, int32_t ndim,
                            mp_value* out);
/* Over the given axes, or over all of a sample's when there are none. */
MP_API mp_status mp_mean(mp_market* market, mp_value x, const int64_t* axes, int32_t axis_count,
                         int32_t keepdim, mp_value* out);
/* a + b and a * b of one shape: residual connections. */
MP_API mp_status mp_add(mp_market* market, mp_value a, mp_value b, mp_value* out);
MP_API mp_status mp_multiply(mp_market* market, mp_value a, mp_value b, mp_value* out);
/* scale * x + shift */
MP_API mp_status mp_affine(mp_market* market, mp_value x, double scale, double shift,
                           mp_value* out);
MP_API mp_status mp_set_output(mp_market* market, mp_value x);

typedef struct mp_device_options {
  size_t size;
  const char* device;       /* a name from mp_get_device; NULL: "auto", a GPU or else the CPU */
  const char* dtype;        /* of products: "float32" or NULL, "bfloat16"; on GPUs also "tf32" */
  int64_t max_memory_bytes; /* of each GPU; 0: most of what is free */
  int32_t threads;          /* 0: every core that this process may use */
  int32_t reserved;
} mp_device_options;

/*
 * Ends the building: no layers after, weights, inference and optimizers only now. options may be
 * NULL. Weights are drawn as by mp_market_initialize with seed 0.
 */
MP_API mp_status mp_market_finish(mp_market* market, const mp_device_options* options);

/* ---- weights --------------------------------------------------------------------------------- */

/*
 * Draws first weights: of conv2d and linear uniform within 1 / sqrt(fan in) of zero, norms 1 and 0.
 * The same values as in Python after marketplace.random.manual_seed(seed), where the layers are
 * made in the order in which they were added here.
 */
MP_API mp_status mp_market_initialize(mp_market* market, uint64_t seed);

typedef struct mp_parameter {
  size_t size;          /* in: sizeof(mp_parameter) */
  const char* key;      /* "layers.0.weight"; valid as long as the market */
  const int64_t* shape; /* (ndim,); valid as long as the market */
  int64_t count;        /* elements */
  int32_t ndim;
  int32_t is_buffer; /* running statistics: neither trained nor counted as parameters */
} mp_parameter;

/* Arrays of a spec, in the order of their keys. */
MP_API mp_status mp_parameter_count(const mp_market* market, int64_t spec, int64_t* count);
MP_API mp_status mp_get_parameter(const mp_market* market, int64_t spec, int64_t index,
                                  mp_parameter* parameter);
/* count: elements that `values` has room for, which must be the array's. */
MP_API mp_status mp_get_weights(const mp_market* market, int64_t spec, const char* key,
                                float* values, int64_t count);
/* values: float32, of the array's shape. */
MP_API mp_status mp_set_weights(mp_market* market, int64_t spec, const char* key,
                                const mp_tensor* values);

/*
 * Safetensors files in the layout of Python's marketplace.checkpoint, readable both ways: every
 * array as "spec.{i}.{key}", and the step. Saving replaces a file whole or not at all. Loading
 * changes nothing unless the whole file fits this market; an optimizer's state in it is passed
 * over here. global_step may be NULL when loading.
 */
MP_API mp_status mp_market_save(const mp_market* market, const char* path, int64_t global_step);
MP_API mp_status mp_market_load(mp_market* market, const char* path, int64_t* global_step);

/* ---- inference ------------------------------------------------------------------------------- */

/* The output's shape for one sample's. *out_ndim: in, room in out_shape; out, extents given. */
MP_API mp_status mp_output_shape(const mp_market* market, const int64_t* shape, int32_t ndim,
                                 int64_t* out_shape, int32_t* out_ndim);
/* x (B, ...) uint8 or float32 -> out (B, ...), base weights; count: elements of out. */
MP_API mp_status mp_infer(mp_market* market, const mp_tensor* x, float* out, int64_t count);

/* The k largest or smallest of `values` (count,) and their indices, best first; ties go to the
 * lower index, NaN comes last. best or indices may be NULL. */
MP_API mp_status mp_topk(const float* values, int64_t count, int64_t k, int32_t largest,
                         float* best, int64_t* indices);

/* ---- training -------------------------------------------------------------------------------- */

typedef struct mp_optimizer mp_optimizer;

/* All paths; the leader's and those that leave it in one spec; one for every sample; node
 * perturbation. */
enum { MP_PLAN_TREE = 0, MP_PLAN_STAR = 1, MP_PLAN_SCATTER = 2, MP_PLAN_NODE = 3 };
/* How a direction becomes a step; the default is ADAM for plan node, UNIT for the others. */
enum {
  MP_UPDATE_DEFAULT = 0,
  MP_UPDATE_UNIT = 1,
  MP_UPDATE_MOMENTUM = 2,
  MP_UPDATE_CLIPUP = 3,
  MP_UPDATE_ADAM = 4
};
/* How losses become scores. */
enum { MP_SHAPING_Z = 0, MP_SHAPING_RANK = 1, MP_SHAPING_SIGN = 2 };
/* What a direction is divided by the norm of; the default is WHOLE for plan scatter, else PER_SPEC.
 */
enum { MP_UNIT_VECTOR_DEFAULT = 0, MP_UNIT_VECTOR_PER_SPEC = 1, MP_UNIT_VECTOR_WHOLE = 2 };

typedef struct mp_optimizer_options {
  size_t size;
  uint64_t seed;            /* all vendors of all steps follow from it */
  int32_t plan;             /* MP_PLAN_... */
  int32_t update;           /* MP_UPDATE_... */
  int32_t shaping;          /* MP_SHAPING_... */
  int32_t unit_vector_mode; /* MP_UNIT_VECTOR_... */
  float learning_rate;      /* length of a step; no default */
  float probe_scale;        /* size of the deltas in learning rates; 0: 1, of plan node 0.003 */
  float momentum;           /* 0: 0.9 */
  int32_t antithetic;       /* tree, star: vendors in pairs of opposite deltas */
  int32_t control_variate;  /* scatter: losses less those of the base weights */
  int32_t use_ignore_index; /* samples labelled ignore_index count for nothing */
  int32_t ignore_index;
  float meta_learning_rate; /* tree, star: steps search rates within this share, 0.1; 0: none */
  const uint64_t* seeds;    /* of the first vendors, spec by spec; NULL: they follow from seed */
  int64_t seed_count;       /* of all specs together */
} mp_optimizer_options;

MP_API mp_status mp_optimizer_create(mp_market* market, const mp_optimizer_options* options,
                                     mp_optimizer** optimizer);
/* NULL is allowed. */
MP_API mp_status mp_optimizer_free(mp_optimizer* optimizer);
/* How many losses a probe of B samples gives at most: P; B for plan scatter, 1 for plan node. */
MP_API mp_status mp_path_count(mp_optimizer* optimizer, int64_t batch_size, int64_t* count);
/* Losses (P,) and paths (P, S), vendor indices, of a batch x (B, ...) uint8 or float32 with labels
 * (B,) of any integer dtype. *count: in, paths that the buffers have room for; out, P. */
MP_API mp_status mp_probe(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                          float* losses, int32_t* paths, int64_t* count);
/* As mp_probe, on one more batch of the same vendors. Losses: the mean over the batches since the
 * vendors were drawn, or since the last mp_probe, which counts as the first. */
MP_API mp_status mp_accumulate(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                               float* losses, int32_t* paths, int64_t* count);
/*
 * Updates the weights along the direction of some losses (P,) and paths (P, S), and draws new
 * vendors. learning_rate: of this step and the new vendors. degenerate (may be NULL): whether all
 * losses were equal, so that they say nothing.
 *
 * With a meta learning rate, the batches since the vendors were drawn (copies of them) run a second
 * time, and every spec has a learning rate of its own, which learning_rate does not change.
 */
MP_API mp_status mp_step(mp_optimizer* optimizer, const float* losses, const int32_t* paths,
                         int64_t count, float learning_rate, int32_t* degenerate);
/* mp_probe and mp_step of its losses in one call, with the same results. */
MP_API mp_status mp_train_step(mp_optimizer* optimizer, const mp_tensor* x, const mp_tensor* labels,
                               float learning_rate, float* losses, int32_t* paths, int64_t* count,
                               int32_t* degenerate);

/* Adds the direction of these vendors, not normalised, to a sum, and draws others for the same
 * update: mp_step adds its own vendors' and normalises the sum. learning_rate and degenerate as
 * for mp_step. mp_drop_replicas forgets the sum and goes back to the update's first vendors. */
MP_API mp_status mp_add_replica(mp_optimizer* optimizer, const float* losses, const int32_t* paths,
                                int64_t count, float learning_rate, int32_t* degenerate);
MP_API mp_status mp_drop_replicas(mp_optimizer* optimizer);
/*
 * Instead of a step, plans tree and star: makes the vendors of the path with the lowest loss the
 * base weights, and draws new ones around them. learning_rate: of the new vendors. *best (may be
 * NULL): the path's row; equal losses go to the lower one.
 */
MP_API mp_status mp_keep_best(mp_optimizer* optimizer, const float* losses, const int32_t* paths,
                              int64_t count, float learning_rate, int64_t* best);
/* Of the vendors that are drawn from now on; 0: 1, of plan node 0.003. */
MP_API mp_status mp_set_probe_scale(mp_optimizer* optimizer, float probe_scale);
/* Of the steps from now on, for an optimizer that was made with one. */
MP_API mp_status mp_set_meta_learning_rate(mp_optimizer* optimizer, float meta_learning_rate);
/* Learning rates (S,) as the next step finds them; count: room in rates. */
MP_API mp_status mp_get_learning_rates(const mp_optimizer* optimizer, float* rates, int64_t count);

/*
 * As mp_market_save and mp_market_load, with what training needs to go on bit for bit: files of
 * Python's Optimizer.save. Loading wants an optimizer of the same plan, update, momentum and
 * shaping on a market with the same vendors, and a meta learning rate in both or neither; rates,
 * probe scale and seed become the file's. There is nothing to save between mp_add_replica and
 * mp_step.
 */
MP_API mp_status mp_optimizer_save(const mp_optimizer* optimizer, const char* path,
                                   int64_t global_step);
MP_API mp_status mp_optimizer_load(mp_optimizer* optimizer, const char* path, int64_t* global_step);

#ifdef __cplusplus
}
#endif

#endif /* MARKETPLACE_H */
