#define MP_ISA_NAME "avx512"
#define MP_ISA_TABLE kernels_avx512
#include "cpu/isa/kernels.inc"
