// What is done to each element or each position of a map, float32: GELU, and tokens of several scales on one grid.

#pragma once

#include "cells.h"

namespace {

constexpr Int RUN = Int(1) << 15;  // elements of an item of work, about

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

// --- GELU -------------------------------------------------------------------------------------------------------------

// The normal distribution's tail is its density times Mills' ratio, to 9e-8 of it a polynomial in 1 / (1 + 0.3 t).
struct Normal {
  Vec t, density, ratio;  // of t = |x|, at most 20, where both are 0 in float32; NaN of NaN

  explicit INLINE Normal(Vec x) {
    t = (Vec)((Ints)x & 0x7fffffff);
    t = t > 20.0f ? splat(20.0f) : t;
    density = 0.398942280401432678f * power_of_two(t * t * (-0.5f * LOG2_E));
    Vec s = 1.0f / (t * 0.3f + 1.0f);
    Vec p = splat(9.443174808e-02f);
    p = p * s - 4.165169736e-01f;
    p = p * s + 5.597743922e-01f;
    p = p * s - 1.787916093e-01f;
    p = p * s + 3.498314350e-01f;
    p = p * s + 2.399151907e-01f;
    p = p * s + 3.050869931e-01f;
    p = p * s + 2.995673249e-01f;
    ratio = p * s + 1.553869568e-05f;
  }
};

INLINE Vec gelu(Vec x) {  // x times the distribution
  Normal normal(x);
  return (x > 0.0f ? x : Vec{}) - normal.t * normal.density * normal.ratio;
}

INLINE Vec gelu_slope(Vec x) {  // the distribution and x times the density
  Normal normal(x);
  Vec below = normal.density * (normal.ratio - normal.t);
  return x > 0.0f ? 1.0f - below : below;
}

// to[i] = function(vector at i), of elements `begin` to `end`; the last vector is filled up with zeros.
template <class F, class... From>
INLINE void map_vectors(Int begin, Int end, float* to, F&& function, const From*... from) {
  Int i = begin;
  for (; i + LANES <= end; i += LANES) store(to + i, function(load(from + i)...));
  if (i == end) return;
  auto part = [&](const float* x) {
    Vec v{};
    __builtin_memcpy(&v, x + i, size_t(end - i) * sizeof(float));
    return v;
  };
  Vec last = function(part(from)...);
  __builtin_memcpy(to + i, &last, size_t(end - i) * sizeof(float));
}

// --- Repeats ----------------------------------------------------------------------------------------------------------

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

EXPORT int eyetoy_gelu(const Elements* e, const float* x, float* y) {
  return each_band(e->threads, e->parallel, (e->count + LANES - 1) / LANES, LANES, [&](Int begin, Int end) {
    map_vectors(begin * LANES, std::min(end * LANES, e->count), y, [](Vec v) { return gelu(v); }, x);
  });
}

EXPORT int eyetoy_gelu_backward(const Elements* e, const float* dy, const float* x, float* dx) {
  return each_band(e->threads, e->parallel, (e->count + LANES - 1) / LANES, LANES, [&](Int begin, Int end) {
    map_vectors(begin * LANES, std::min(end * LANES, e->count), dx, [](Vec g, Vec v) { return g * gelu_slope(v); }, dy, x);
  });
}

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
