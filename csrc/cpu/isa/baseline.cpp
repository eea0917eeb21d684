#define MP_ISA_NAME "baseline"
#define MP_ISA_TABLE kernels_baseline
#include "cpu/isa/kernels.inc"
