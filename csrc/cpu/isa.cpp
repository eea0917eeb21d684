#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"

namespace marketplace::cpu {

#if defined(__x86_64__) && !defined(MARKETPLACE_BASELINE_ONLY)
extern const KernelTable kernels_baseline, kernels_avx2, kernels_avx512, kernels_avx512bf16;
#else
extern const KernelTable kernels_baseline;
#endif

namespace {

struct Candidate {
  const KernelTable* table;
  bool usable;
};

// From the best to the plainest.
std::vector<Candidate> candidates() {
#if defined(__x86_64__) && !defined(MARKETPLACE_BASELINE_ONLY)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  return {{&kernels_avx512bf16, bf16},
          {&kernels_avx512, avx512},
          {&kernels_avx2, avx2},
          {&kernels_baseline, true}};
#else
  return {{&kernels_baseline, true}};
#endif
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) names.emplace_back(candidate.table->name);
  return names;
}

const KernelTable& active_kernels() {
  const char* forced = std::getenv("MARKETPLACE_ISA");
  std::string known;
  for (const Candidate& candidate : candidates()) {
    const std::string name = candidate.table->name;
    known += (known.empty() ? "" : ", ") + name;
    if (forced && *forced ? name != forced : !candidate.usable) continue;
    if (!candidate.usable)
      fail(ErrorKind::runtime, "MARKETPLACE_ISA", "instructions that this machine has",
           "'" + name + "'");
    return *candidate.table;
  }
  fail("MARKETPLACE_ISA", "one of " + known, "'" + std::string(forced ? forced : "") + "'");
}

}  // namespace marketplace::cpu
