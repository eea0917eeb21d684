#define MP_ISA_NAME "avx2"
#define MP_ISA_TABLE kernels_avx2
#include "cpu/isa/kernels.inc"
