#define MP_ISA_NAME "avx512bf16"
#define MP_ISA_TABLE kernels_avx512bf16
#include "cpu/isa/kernels.inc"
