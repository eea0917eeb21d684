// AVX-512-BF16's kernels, with bfloat16 products on matrix units.
#include "cpu/kernels/contract_tiles.h"

namespace marketplace::cpu {

const KernelTable& kernels_avx512bf16();
const KernelTable& kernels_amx();
const KernelTable& kernels_amx() {
  static const KernelTable table = [] {
    KernelTable t = kernels_avx512bf16();
    t.name = "amx";
    t.matrix_units = true;
    t.bfloat16.contract = contract_tiles;
    return t;
  }();
  return table;
}

}  // namespace marketplace::cpu
