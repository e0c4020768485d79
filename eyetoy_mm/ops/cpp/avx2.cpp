// x86-64 with AVX2 and FMA: 16 registers of 8 floats.
#define LANES 8
#define ACCUMULATORS 8
#include "repeats.h"
