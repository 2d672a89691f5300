#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
#define NAME avx512_bf16
#define LANES 16
#if !defined(__clang__)
#define ROUNDS_TO_BFLOAT16
#endif
#include "instruction_set.h"
#endif
