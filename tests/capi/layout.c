/* The layout of every struct on 64-bit machines: a change here is a change of MP_ABI_VERSION,
 * except that structs which begin with their size may grow at the end. Compiled, never run. */
#include <marketplace.h>

#define SIZE(type, bytes) typedef char size_of_##type[sizeof(type) == (bytes) ? 1 : -1]
#define AT(type, field, bytes) \
  typedef char at_##type##_##field[offsetof(type, field) == (bytes) ? 1 : -1]

SIZE(mp_tensor, 48);
AT(mp_tensor, data, 0);
AT(mp_tensor, device_type, 8);
AT(mp_tensor, device_id, 12);
AT(mp_tensor, ndim, 16);
AT(mp_tensor, dtype_code, 20);
AT(mp_tensor, dtype_bits, 21);
AT(mp_tensor, dtype_lanes, 22);
AT(mp_tensor, shape, 24);
AT(mp_tensor, strides, 32);
AT(mp_tensor, byte_offset, 40);

SIZE(mp_device, 256);
AT(mp_device, name, 8);
AT(mp_device, kind, 72);
AT(mp_device, description, 88);
AT(mp_device, threads, 248);

SIZE(mp_conv2d_options, 112);
AT(mp_conv2d_options, key, 8);
AT(mp_conv2d_options, in_channels, 16);
AT(mp_conv2d_options, out_channels, 24);
AT(mp_conv2d_options, kernel, 32);
AT(mp_conv2d_options, stride, 48);
AT(mp_conv2d_options, padding, 64);
AT(mp_conv2d_options, dilation, 80);
AT(mp_conv2d_options, groups, 96);
AT(mp_conv2d_options, no_bias, 104);

SIZE(mp_linear_options, 40);
AT(mp_linear_options, key, 8);
AT(mp_linear_options, in_features, 16);
AT(mp_linear_options, out_features, 24);
AT(mp_linear_options, no_bias, 32);

SIZE(mp_norm_options, 40);
AT(mp_norm_options, key, 8);
AT(mp_norm_options, eps, 16);
AT(mp_norm_options, momentum, 24);
AT(mp_norm_options, no_affine, 32);

SIZE(mp_pool2d_options, 80);
AT(mp_pool2d_options, kernel, 8);
AT(mp_pool2d_options, stride, 24);
AT(mp_pool2d_options, padding, 40);
AT(mp_pool2d_options, dilation, 56);
AT(mp_pool2d_options, exclude_pad, 72);

SIZE(mp_device_options, 40);
AT(mp_device_options, device, 8);
AT(mp_device_options, dtype, 16);
AT(mp_device_options, max_memory_bytes, 24);
AT(mp_device_options, threads, 32);

SIZE(mp_parameter, 40);
AT(mp_parameter, key, 8);
AT(mp_parameter, shape, 16);
AT(mp_parameter, count, 24);
AT(mp_parameter, ndim, 32);
AT(mp_parameter, is_buffer, 36);

SIZE(mp_optimizer_options, 80);
AT(mp_optimizer_options, seed, 8);
AT(mp_optimizer_options, plan, 16);
AT(mp_optimizer_options, update, 20);
AT(mp_optimizer_options, shaping, 24);
AT(mp_optimizer_options, unit_vector_mode, 28);
AT(mp_optimizer_options, learning_rate, 32);
AT(mp_optimizer_options, probe_scale, 36);
AT(mp_optimizer_options, momentum, 40);
AT(mp_optimizer_options, antithetic, 44);
AT(mp_optimizer_options, control_variate, 48);
AT(mp_optimizer_options, use_ignore_index, 52);
AT(mp_optimizer_options, ignore_index, 56);
AT(mp_optimizer_options, meta_learning_rate, 60);
AT(mp_optimizer_options, seeds, 64);
AT(mp_optimizer_options, seed_count, 72);
