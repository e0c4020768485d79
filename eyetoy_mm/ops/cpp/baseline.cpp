// Any machine: registers of 4 floats (SSE2, NEON).
#define LANES 4
#define ACCUMULATORS 8
#include "repeats.h"
