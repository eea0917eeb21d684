// The shim's controls for Python's ctypes, in the emulated plugin.
#include "control.h"

#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))

SIMT_EXPORT void simt_fail_allocation(int n) {
  simt::fail_allocation(n);
}
SIMT_EXPORT void simt_fail_launch(int n) {
  simt::fail_launch(n);
}
SIMT_EXPORT void simt_fail_copy(int n) {
  simt::fail_copy(n);
}
SIMT_EXPORT std::int64_t simt_launches() {
  return simt::counts().launches;
}
SIMT_EXPORT std::int64_t simt_live_blocks() {
  return simt::counts().live_blocks;
}
SIMT_EXPORT std::int64_t simt_live_handles() {
  return simt::counts().live_handles;
}
