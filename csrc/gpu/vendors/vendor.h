// The one header through which device code sees its vendor. Sources are written in CUDA's spelling;
// what differs between vendors lives in this folder and nowhere else. Each vendor defines
//   kVendor, kWarpSize, kMostSharedBytes
//   kMostThreads                        of one launch
//   kCopyStages                         tiles in shared memory, of which one is read
//   kHasFloatTiles                      whether matrix units multiply float32 as it is
//   kHasTf32                            whether tiles of Tf32 are worth more than those of float
//   shuffle, shuffle_xor, shuffle_down, any_lane, all_lanes, sync_warp   over all lanes of a warp
//   MP_LAUNCH_BOUNDS(threads, blocks)   as __launch_bounds__ of a kernel
//   MP_UNROLL                           before a loop: loads of several rounds at once
//   dynamic_shared                      the block's dynamic shared memory, 16-byte aligned
//   Copy16, copy_async_commit, copy_async_wait<N>
//   keep_order()                        memory is touched before and behind it as the source says
//   keep_order(value)                   and not behind it before the value is there
//   allow_dynamic_shared, launch_kernel, kernel_name      for launch.h
//   needed, runs_kernels                what a device must be, and whether it is
//   pointer_device                      whose memory a pointer points to; -1: no device's
// and, in mma_<vendor>.h, the tiles of tile_mma.h.
#pragma once

#if defined(MARKETPLACE_SIMT)
#include "simt.h"  // the CPU as a device, tests only
#elif defined(__HIP__) || defined(__HIPCC__) || defined(__HIP_PLATFORM_AMD__)
#include "gpu/vendors/hip.h"
#else
#include "gpu/vendors/cuda.h"
#endif
