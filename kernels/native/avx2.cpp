#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define NAME avx2
#define LANES 8
#include "instruction_set.h"
#endif
