// cp.async: copies into shared memory that are under way until they are waited for.
//
// They are done at the wait, so that a missing wait shows; MARKETPLACE_MACHINE_COPIES=early does
// them at once, so that it shows where a stage is overwritten that is still read. The hardware may
// do either.
#include <cstdlib>
#include <cstring>

#include "memory.h"

namespace ptx {
namespace {

constexpr std::uint32_t kCopied = 16;

bool early() {
  static const char* asked = std::getenv("MARKETPLACE_MACHINE_COPIES");
  static const bool is_early = asked != nullptr && std::strcmp(asked, "early") == 0;
  return is_early;
}

void perform(Warp& warp, const Copy& copy) {
  std::byte* to = warp.block->shared + copy.shared;
  std::memset(to, 0, kCopied);
  if (copy.bytes > 0) std::memcpy(to, reinterpret_cast<const std::byte*>(copy.global), copy.bytes);
}

void copy16(Warp& warp, const Instruction& instruction) {
  std::uint64_t to[kLanes], from[kLanes];
  std::uint32_t reading = 0;
  each_lane(warp.active, [&](int lane) {
    to[lane] = address_of(warp, instruction, 0, lane);
    from[lane] = warp.lanes<std::uint64_t>(instruction, 1)[lane];
    const std::uint32_t bytes =
        instruction.offsets[2] < 0 ? kCopied : warp.lanes<std::uint32_t>(instruction, 2)[lane];
    if (bytes > kCopied) fail(warp, instruction, lane, "cp.async of more bytes than it copies");
    find_shared(warp, instruction, lane, to[lane], kCopied);
    watch_shared(warp, instruction, lane, to[lane], kCopied, true);
    if (from[lane] % kCopied != 0)
      fail(warp, instruction, lane, "cp.async: global address not aligned");
    if (bytes > 0) {
      find_global(warp, instruction, lane, from[lane], kCopied);
      reading |= 1u << lane;
    }
    const Copy copy = {warp.groups[lane], static_cast<std::uint32_t>(to[lane]), from[lane], bytes,
                       &instruction};
    if (early())
      perform(warp, copy);
    else
      warp.copies[lane].push_back(copy);
  });
  count_shared(instruction, to, warp.active, kCopied);
  count_global(instruction, from, reading, kCopied);
}

void commit(Warp& warp, const Instruction&) {
  each_lane(warp.active, [&](int lane) { ++warp.groups[lane]; });
}

// Does the copies of the groups before `end`, in order.
void finish(Warp& warp, int lane, std::int64_t end) {
  std::deque<Copy>& copies = warp.copies[lane];
  for (; !copies.empty() && copies.front().group < end; copies.pop_front()) {
    const Copy& copy = copies.front();
    watch_shared(warp, *copy.instruction, lane, copy.shared, kCopied, true);
    perform(warp, copy);
  }
}

void wait_group(Warp& warp, const Instruction& instruction) {
  each_lane(warp.active,
            [&](int lane) { finish(warp, lane, warp.groups[lane] - instruction.number); });
}

void wait_all(Warp& warp, const Instruction&) {
  each_lane(warp.active, [&](int lane) { finish(warp, lane, warp.groups[lane] + 1); });
}

}  // namespace

void add_copies(Operations& operations) {
  operations["cp.async"] = copy16;
  operations["cp.async.commit_group"] = commit;
  operations["cp.async.wait_group"] = wait_group;
  operations["cp.async.wait_all"] = wait_all;
}

}  // namespace ptx
