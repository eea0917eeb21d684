// AVX-512's kernels, with bfloat16 by instructions of its own.
#include "cpu/isa/typed.inc"

namespace marketplace::cpu {

extern const KernelTable kernels_avx512;
const KernelTable& kernels_avx512bf16();
const KernelTable& kernels_avx512bf16() {
  static const KernelTable table = [] {
    KernelTable t = kernels_avx512;
    t.name = "avx512bf16";
    t.bfloat16 = MP_TYPED_KERNELS(BFloat16);
    return t;
  }();
  return table;
}

}  // namespace marketplace::cpu
