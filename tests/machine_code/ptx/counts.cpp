// What memory accesses would cost: wavefronts of shared memory, sectors of global memory.
#include <algorithm>
#include <cstdlib>

#include "memory.h"

namespace ptx {
namespace {

constexpr int kBanks = 32, kBankBytes = 4, kSectorBytes = 32;

bool counting() {
  static const bool asked = std::getenv("MARKETPLACE_MACHINE_COUNTS") != nullptr;
  return asked;
}

// Passes for lanes that are served together: as many as the busiest bank has different words.
int wavefronts(const std::uint64_t (&addresses)[kLanes], std::uint32_t lanes, int bytes) {
  std::uint64_t words[kLanes * 4];
  int count = 0, most = 0, busy[kBanks] = {};
  for (int lane = 0; lane < kLanes; ++lane)
    for (int byte = 0; (lanes >> lane & 1) && byte < bytes; byte += kBankBytes)
      words[count++] = (addresses[lane] + byte) / kBankBytes;
  std::sort(words, words + count);
  const int unique = static_cast<int>(std::unique(words, words + count) - words);
  for (int i = 0; i < unique; ++i) most = std::max(most, ++busy[words[i] % kBanks]);
  return most;
}

}  // namespace

// Accesses of 8 bytes are served by half warps, of 16 bytes by quarters.
void count_shared(const Instruction& instruction, const std::uint64_t (&addresses)[kLanes],
                  std::uint32_t active, int bytes) {
  if (!counting() || active == 0) return;
  ++instruction.shared.accesses;
  const int together = bytes <= kBankBytes ? kLanes : kLanes * kBankBytes / bytes;
  for (int first = 0; first < kLanes; first += together) {
    const std::uint32_t lanes = together == kLanes ? kAllLanes : ((1u << together) - 1) << first;
    if ((active & lanes) == 0) continue;
    instruction.shared.passes += wavefronts(addresses, active & lanes, bytes);
    ++instruction.shared.least;
  }
}

// An address that several lanes give counts once.
void count_global(const Instruction& instruction, const std::uint64_t (&addresses)[kLanes],
                  std::uint32_t active, int bytes) {
  if (!counting() || active == 0) return;
  ++instruction.global.accesses;
  std::uint64_t used[kLanes], sectors[kLanes];
  int count = 0;
  each_lane(active, [&](int lane) { used[count++] = addresses[lane]; });
  std::sort(used, used + count);
  const int unique = static_cast<int>(std::unique(used, used + count) - used);
  std::transform(used, used + unique, sectors, [](std::uint64_t at) { return at / kSectorBytes; });
  instruction.global.passes += std::unique(sectors, sectors + unique) - sectors;
  instruction.global.least += (unique * bytes + kSectorBytes - 1) / kSectorBytes;
}

}  // namespace ptx
