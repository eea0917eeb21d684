#include "cpu/isa.h"

#include <cstdlib>

#if defined(MARKETPLACE_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/error.h"

namespace marketplace::cpu {

#if defined(__x86_64__) && !defined(MARKETPLACE_BASELINE_ONLY)
extern const KernelTable kernels_baseline, kernels_avx2, kernels_avx512;
const KernelTable& kernels_avx512bf16();
#else
extern const KernelTable kernels_baseline;
#endif

#if defined(MARKETPLACE_AMX)
const KernelTable& kernels_amx();
#endif

namespace {

bool always() {
  return true;
}

#if defined(__x86_64__) && !defined(MARKETPLACE_BASELINE_ONLY)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

#if defined(MARKETPLACE_AMX)
// Matrix units hold 8 KiB a thread, so Linux lets a process use them only once it has asked
// (Documentation/arch/x86/xstate.rst). It refuses where a signal stack would be too small.
bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  constexpr unsigned kBfloat16 = 1u << 22, kTile = 1u << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & kBfloat16) == 0 || (d & kTile) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

// A table is asked for only where it can be used: what makes it is compiled for the same
// instructions.
struct Candidate {
  const char* name;
  bool (*usable)();
  const KernelTable& (*table)();
};

template <const KernelTable& kTable>
const KernelTable& constant_table() {
  return kTable;
}

// From the best to the plainest.
std::vector<Candidate> candidates() {
#if defined(__x86_64__) && !defined(MARKETPLACE_BASELINE_ONLY)
  __builtin_cpu_init();
  return {
#if defined(MARKETPLACE_AMX)
      {"amx", has_amx, kernels_amx},
#endif
      {"avx512bf16", has_avx512bf16, kernels_avx512bf16},
      {"avx512", has_avx512, constant_table<kernels_avx512>},
      {"avx2", has_avx2, constant_table<kernels_avx2>},
      {"baseline", always, constant_table<kernels_baseline>}};
#else
  return {{kernels_baseline.name, always, constant_table<kernels_baseline>}};
#endif
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) names.emplace_back(candidate.name);
  return names;
}

const KernelTable& active_kernels() {
  const char* forced = std::getenv("MARKETPLACE_ISA");
  const bool chosen = forced && *forced;
  std::string known;
  for (const Candidate& candidate : candidates()) {
    const std::string name = candidate.name;
    known += (known.empty() ? "" : ", ") + name;
    if (chosen && name != forced) continue;
    if (candidate.usable()) return candidate.table();
    if (chosen)
      fail(ErrorKind::runtime, "MARKETPLACE_ISA", "instructions that this machine has",
           "'" + name + "'");
  }
  fail("MARKETPLACE_ISA", "one of " + known, "'" + std::string(chosen ? forced : "") + "'");
}

const TypedKernels& typed_kernels(const KernelTable& kernels, DType dtype) {
  if (dtype == DType::float32) return kernels.float32;
  if (dtype == DType::bfloat16) return kernels.bfloat16;
  fail(ErrorKind::runtime, "cpu", "activations in float32 or bfloat16", "another type");
}

}  // namespace marketplace::cpu
