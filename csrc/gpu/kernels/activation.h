// Activations in float32, by formulas that lose no digits where results are small.
#pragma once

#include "gpu/program.h"
#include "gpu/vendors/vendor.h"

namespace marketplace::gpu {

__device__ inline float activate(Activation kind, float x) {
  switch (kind) {
    case Activation::none: return x;
    case Activation::relu: return x < 0 ? 0.0f : x;
    case Activation::gelu: return 0.5f * x * erfcf(x * -0.70710678f);  // x Phi(x)
    case Activation::gelu_tanh:
      return x / (1.0f + expf(-1.59576912f * (x + 0.044715f * x * x * x)));
    case Activation::sigmoid: return 1.0f / (1.0f + expf(-x));
    case Activation::tanh: return tanhf(x);
  }
  return x;
}

// Calls run(f), f being the activation; the usual ones without asking for each number which it is.
template <class Run>
__device__ __forceinline__ void with_activation(Activation kind, Run run) {
  if (kind == Activation::none) return run([](float x) { return x; });
  if (kind == Activation::relu) return run([](float x) { return activate(Activation::relu, x); });
  run([kind](float x) { return activate(kind, x); });
}

}  // namespace marketplace::gpu
