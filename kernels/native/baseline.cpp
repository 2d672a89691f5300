// What every machine of the architecture has: SSE2 on x86-64, NEON on ARM.
#define NAME baseline
#define LANES 4
#include "instruction_set.h"
