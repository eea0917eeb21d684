# Device code: compiled as CUDA, as HIP, and as plain C++ for the tests' SIMT shim. Kernels are in kernels/ alone;
# the rest calls the runtime, and no chip has a part in it.
set(MARKETPLACE_GPU_SOURCES
  checksum.cu device_executor.cu device_step.cu exchange.cu executor.cu gpu_backend.cu incoming.cu measure.cu memory.cu plugin.cu run_program.cu
  node/arena.cu node/node_device.cu node/node_run.cu node/prober.cu node/segment.cu node/stage.cu runtime.cu scorer.cu session.cu team.cu
  update.cu weights.cu
  kernels/checksum.cu kernels/coefficients.cu kernels/contract.cu kernels/cross_entropy.cu kernels/elementwise.cu kernels/incoming.cu
  kernels/instance_norm.cu kernels/node.cu kernels/norm.cu kernels/pool.cu kernels/random.cu kernels/topk.cu kernels/vector.cu
  kernels/weight_gradient.cu)
# Host code that sees no device.
set(MARKETPLACE_GPU_HOST_SOURCES lower.cpp place.cpp schedule.cpp split.cpp)
