// Tokens of several scales side by side on one map, float32: each is copied to the positions that it stands for.

#pragma once

#include "cells.h"

namespace {

constexpr Int RUN = Int(1) << 15;  // floats of an item of work, about

// function(first, last) over bands of `n` units of `size` elements each; 0, or -1 where memory ran out.
template <class F>
int each_band(Int threads, Parallel parallel, Int n, Int size, F&& function) {
  Problem problem{};
  problem.threads = threads, problem.parallel = parallel;
  Int band = std::max<Int>(1, RUN / std::max<Int>(1, size)), bands = threads > 1 ? (n + band - 1) / band : 1;
  return in_parallel(problem, 0, size_t(bands), [&](auto& shared) {
    for (size_t i; (i = shared.next++) < shared.end;) function(n * Int(i) / bands, n * (Int(i) + 1) / bands);
  }) ? 0 : -1;
}

Int tokens(Int length, Int factor) { return (length + factor - 1) / factor; }

Int token_rows(const Joined& joined, const Scale& scale) {
  return joined.batch * tokens(joined.length[0], scale.factor) * tokens(joined.length[1], scale.factor);
}

Int token_rows(const Joined& joined, const Scale* scales) {  // of all groups
  Int sum = 0;
  for (Int group = 0; group < joined.groups; ++group) sum += token_rows(joined, scales[group]);
  return sum;
}

// function(token, its channels, position in the map, whether it is the token's first) for each token of some rows and each
// position that repeats it; the rows are those of all groups, one group after the other.
template <class F>
INLINE void each_repeat(const Joined& joined, const Scale* scales, Int begin, Int end, float* map, F&& function) {
  const Int* length = joined.length;
  Int before = 0;  // rows of the groups before
  for (Int group = 0; group < joined.groups; map += scales[group++].channels) {
    const Scale& scale = scales[group];
    const Int f = scale.factor, ny = tokens(length[1], f), nz = tokens(length[0], f), nx = tokens(length[2], f);
    const Int rows = token_rows(joined, scale);
    for (Int row = std::max<Int>(0, begin - before); row < std::min(rows, end - before); ++row) {
      const Int first_y = row % ny * f, first_z = row / ny % nz * f, batch = row / ny / nz;
      for (Int z = first_z; z < std::min(first_z + f, length[0]); ++z)
        for (Int y = first_y; y < std::min(first_y + f, length[1]); ++y)
          for (Int x = 0; x < length[2]; ++x)
            function(scale.tokens + (row * nx + x / f) * scale.channels, scale.channels,
                     map + (((batch * length[0] + z) * length[1] + y) * length[2] + x) * joined.channels,
                     z == first_z && y == first_y && x % f == 0);
    }
    before += rows;
  }
}

}  // namespace

// The joined map of tokens.
EXPORT int eyetoy_join(const Joined* joined, const Scale* scales, float* map) {
  Int rows = token_rows(*joined, scales), size = joined->channels * joined->length[2];
  return each_band(joined->threads, joined->parallel, rows, size, [&](Int begin, Int end) {
    each_repeat(*joined, scales, begin, end, map, [](const float* token, Int channels, float* position, bool) {
      std::memcpy(position, token, size_t(channels) * sizeof(float));
    });
  });
}

// The tokens as sums over the positions that repeat them.
EXPORT int eyetoy_join_backward(const Joined* joined, const Scale* scales, float* map) {
  Int rows = token_rows(*joined, scales), size = joined->channels * joined->length[2];
  return each_band(joined->threads, joined->parallel, rows, size, [&](Int begin, Int end) {
    each_repeat(*joined, scales, begin, end, map, [](float* token, Int channels, const float* position, bool first) {
      if (first) {
        std::memcpy(token, position, size_t(channels) * sizeof(float));
        return;
      }
      Int i = 0;
      for (; i + LANES <= channels; i += LANES) store(token + i, load(token + i) + load(position + i));
      for (; i < channels; ++i) token[i] += position[i];
    });
  });
}
