# Device code: compiled as CUDA, as HIP, and as plain C++ for the tests' SIMT shim.
set(MARKETPLACE_GPU_SOURCES
  runtime.cu)
