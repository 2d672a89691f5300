#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define NAME avx512
#define LANES 16
#include "instruction_set.h"
#endif
