// The case, as a caller of the kernels describes it. Both structures are arrays of 64-bit numbers.

#pragma once

#include <cstdint>

namespace {

constexpr int INTERFACE = 1;  // to be raised with every change of the functions and structures that a caller sees

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

static_assert(sizeof(Problem) == 17 * 8 && sizeof(Strided) == 6 * 8, "pointers of 64 bits");

}  // namespace
