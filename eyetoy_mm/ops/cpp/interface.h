// The case, as a caller of the kernels describes it. All structures are arrays of 64-bit numbers.

#pragma once

#include <cstdint>

namespace {

constexpr int INTERFACE = 3;  // to be raised with every change of the functions and structures that a caller sees

typedef std::int64_t Int;

struct Strided {  // (batch, z, y, x, heads, dim), dim contiguous; strides in elements
  float* data;
  Int batch, axis[3], head;
};

typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel

struct Problem {
  Int batch, heads, dim, length[3], kernel[3], dilation[3];
  double scale;
  Int threads;
  Parallel parallel;  // null: threads of our own
  const float* bias;  // (heads, 2 kernel - 1 per axis) or null
  float* bias_gradient;  // as bias, or null
};

// A map (batch, z, y, x, groups * in), its tokens (batch, z / merging, ..., groups * out), and a weight (groups * out, in,
// *merging); all of them contiguous, and the merging divides the lengths.
struct Convolution {
  Int batch, length[3], merging[3], groups, in, out;
  Int threads;
  Parallel parallel;  // as above
};

// A map (batch, z, y, x, channels) of the tokens of some groups side by side, each repeated `factor` times along each axis
// and cut off at the border.
struct Joined {
  Int batch, length[3], channels, groups;
  Int threads;
  Parallel parallel;  // as above
};

struct Scale {  // of one group; its tokens (batch, ceil(z / factor), ..., channels) are contiguous
  float* tokens;
  Int factor, channels;
};

static_assert(sizeof(Problem) == 17 * 8 && sizeof(Strided) == 6 * 8 && sizeof(Convolution) == 12 * 8 &&
                  sizeof(Joined) == 8 * 8 && sizeof(Scale) == 3 * 8,
              "pointers of 64 bits");

}  // namespace
