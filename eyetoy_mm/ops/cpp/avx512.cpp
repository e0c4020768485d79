// x86-64 with AVX-512: 32 registers of 16 floats.
#define LANES 16
#define ACCUMULATORS 16
#include "repeats.h"
