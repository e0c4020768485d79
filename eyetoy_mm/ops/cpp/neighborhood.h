// Neighborhood attention on a CPU, forward and backward, float32. Compiled once per instruction set: the including file
// defines LANES, floats in a vector register, and ACCUMULATORS, registers to sum in.
//
// A vector holds LANES queries that lie together, a tile: their scores against one key are the dot products of LANES
// queries with one broadcast key. So softmax needs no horizontal operations, and keys of any window are used where they
// lie. A tile looks at its halo, the union of the windows of its queries; a mask, added to the scores, leaves each query
// its own window. Halos are cut off at the borders, where windows are shifted inward.
//
// All maps have three axes here (z, y, x); the leading ones of an image or a sequence have length 1. Dilation groups are
// maps of their own. An item of work is one group of one head of one batch entry, or a band of it along its first long
// axis; keys and values of an item are copied to be contiguous, (rows, x, dim padded to `pitch`).
//
// The rule for windows is that of eyetoy_mm/ops/neighborhood.py.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include "interface.h"

namespace {

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

#define INLINE inline __attribute__((always_inline))

INLINE Vec load(const float* from) { Vec v; __builtin_memcpy(&v, from, sizeof v); return v; }
INLINE void store(float* to, Vec v) { __builtin_memcpy(to, &v, sizeof v); }
INLINE Vec splat(float x) { return Vec{} + x; }
INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }

// 2^x of x <= 0, to 2e-7 of it; 0 below the smallest normal number, NaN of NaN.
// 2^x = 2^n 2^r with n = round(x), |r| <= 1/2; the polynomial is the minimax one of 2^r, exact at 0.
INLINE Vec power_of_two(Vec x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  Vec shifted = x + shift;
  Vec r = x - (shifted - shift);
  Vec p = splat(1.535336159e-04f);
  p = p * r + 1.339887452e-03f;
  p = p * r + 9.618437360e-03f;
  p = p * r + 5.550332471e-02f;
  p = p * r + 2.402264791e-01f;
  p = p * r + 6.931472029e-01f;
  p = p * r + 1.0f;
  Ints exponent = ((Ints)shifted + 127) << 23;  // the low bits of `shifted` are n
  return x < -126.0f ? Vec{} : p * (Vec)exponent;
}

// Scores and bias are scaled by this, so that their powers of two are the exponentials of softmax.
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, FourInts{__VA_ARGS__})
#endif

// to[column][row] = from[row][column], four by four.
INLINE void transpose(const float* from, Int apart, float* to, Int to_apart) {
  Four r[4], s[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], from + i * apart, 16);
  s[0] = PICK(r[0], r[1], 0, 4, 1, 5), s[1] = PICK(r[2], r[3], 0, 4, 1, 5);
  s[2] = PICK(r[0], r[1], 2, 6, 3, 7), s[3] = PICK(r[2], r[3], 2, 6, 3, 7);
  r[0] = PICK(s[0], s[1], 0, 1, 4, 5), r[1] = PICK(s[0], s[1], 2, 3, 6, 7);
  r[2] = PICK(s[2], s[3], 0, 1, 4, 5), r[3] = PICK(s[2], s[3], 2, 3, 6, 7);
  for (int i = 0; i < 4; ++i) __builtin_memcpy(to + i * to_apart, &r[i], 16);
}

INLINE void copy_scaled(const float* from, Int n, float factor, float* to) {
  Int i = 0;
  for (; i + LANES <= n; i += LANES) store(to + i, load(from + i) * factor);
  for (; i < n; ++i) to[i] = from[i] * factor;
}

Int bias_size(const Problem& problem) {  // of one head
  Int size = 1;
  for (Int kernel : problem.kernel) size *= 2 * kernel - 1;
  return size;
}

// --- How an axis is cut into tiles ------------------------------------------------------------------------------------

struct Pattern {  // which keys of the halo each query of a tile attends to, along one axis
  std::vector<Int> start, place;  // per query: first key of its window, and itself, counted from the first key
  Int window, keys;
  bool operator==(const Pattern& other) const {
    return keys == other.keys && start == other.start && place == other.place;
  }
};

struct Tile {
  Int query, key;  // first ones
  int pattern;
};

struct Axis {
  Int length, kernel, window, size;  // size: queries per tile
  std::vector<Tile> tiles;
  std::vector<Pattern> patterns;

  Int start(Int i) const { return std::min(std::max<Int>(i - kernel / 2, 0), length - window); }

  Axis(Int length, Int kernel, Int size)
      : length(length), kernel(kernel), window(std::min(kernel, length)), size(size) {
    for (Int first = 0; first < length; first += size) {
      Pattern pattern{{}, {}, window, 0};
      Int key = start(first);
      for (Int i = first; i < first + size; ++i) {
        Int query = std::min(i, length - 1);  // past the end the last one is repeated
        pattern.start.push_back(start(query) - key);
        pattern.place.push_back(query - key);
        pattern.keys = start(query) + window - key;
      }
      size_t which = 0;
      while (which < patterns.size() && !(patterns[which] == pattern)) ++which;
      if (which == patterns.size()) patterns.push_back(pattern);
      tiles.push_back({first, key, int(which)});
    }
  }
};

struct Map {  // one dilation group
  Int group[3];
  std::vector<Axis> axes;
  int outer;  // the axis that is cut into bands
  std::vector<Vec> masks[3];  // per axis, patterns one after the other: 0 or -inf for (key, lane)
  std::vector<Int> mask_at[3];
  Int most_keys = 1;

  Map(const Problem& problem, Int z, Int y, Int x) : group{z, y, x}, outer(0) {
    Int lengths[3];
    for (int a = 0; a < 3; ++a) {
      Int d = problem.dilation[a];
      lengths[a] = problem.length[a] / d + (group[a] < problem.length[a] % d);
    }
    choose(problem, lengths);
    while (outer < 2 && axes[outer].length == 1) ++outer;
    Int below = 1;
    for (int a = 2; a >= 0; --a) {
      Int most = 0;
      for (const Pattern& pattern : axes[a].patterns) {
        mask_at[a].push_back(Int(masks[a].size()));
        most = std::max(most, pattern.keys);
        for (Int key = 0; key < pattern.keys; ++key) {
          Vec mask;
          for (int lane = 0; lane < LANES; ++lane) {
            Int first = pattern.start[lane / below % axes[a].size];
            mask[lane] = key >= first && key < first + pattern.window ? 0.0f : -INFINITY;
          }
          masks[a].push_back(mask);
        }
      }
      below *= axes[a].size;
      most_keys *= most;
    }
  }

  // The tile of LANES queries with the fewest keys in all halos together.
  void choose(const Problem& problem, const Int* lengths) {
    double least = INFINITY;
    Int best[3] = {1, 1, LANES};
    for (Int z = 1; z <= LANES; z *= 2)
      for (Int y = 1; z * y <= LANES; y *= 2) {
        const Int sizes[3] = {z, y, LANES / z / y};
        double cost = 1;
        for (int a = 0; a < 3; ++a) {
          if (a < 2 && lengths[a] == 1 && sizes[a] > 1) cost = INFINITY;
          cost *= double(halos(lengths[a], problem.kernel[a], sizes[a], a == 2));
        }
        if (cost < least) least = cost, std::copy(sizes, sizes + 3, best);
      }
    for (int a = 0; a < 3; ++a) axes.emplace_back(lengths[a], problem.kernel[a], best[a]);
  }

  // Keys of all halos along an axis together; a key more for each, if it has to be begun.
  static Int halos(Int length, Int kernel, Int size, bool begun) {
    Int window = std::min(kernel, length), sum = 0;
    auto start = [&](Int i) { return std::min(std::max<Int>(i - kernel / 2, 0), length - window); };
    for (Int first = 0; first < length; first += size)
      sum += start(std::min(first + size, length) - 1) + window - start(first) + begun;
    return sum;
  }
};

constexpr Int BAND_BYTES = Int(1) << 21;  // of the keys of an item, about: what a thread copies at once

struct Item {
  Int batch, head;
  const Map* map;
  Int first, last;  // tiles along the outer axis
  Int number;
};

// --- Memory of one thread ---------------------------------------------------------------------------------------------

struct Free { void operator()(float* p) const { std::free(p); } };
typedef std::unique_ptr<float, Free> Buffer;

Buffer buffer(Int floats) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, size_t(floats) * sizeof(float) + 64)) throw std::bad_alloc();
  return Buffer(static_cast<float*>(memory));
}

struct Scratch {
  Buffer keys, values, key_gradients, value_gradients;  // (rows, x, pitch)
  Buffer scores, gradients;  // (halo, LANES)
  Buffer query, output_gradient, result;  // (LANES, pitch)
  Buffer query_t, output_gradient_t;  // (dim, LANES)
  Buffer bias, bias_gradient;  // (halo, LANES)
};

// --- Products ---------------------------------------------------------------------------------------------------------

// out[j] = init[j] + sum_d queries[d] * keys[j][d], for N keys; returns the largest of them and `most`.
template <int PITCH, int N>
INLINE Vec dots(const float* queries, const float* keys, Int dim, const Vec* init, Vec most, float* out) {
  Vec sum[N];
#pragma GCC unroll 16
  for (int j = 0; j < N; ++j) sum[j] = init[j];
  for (Int d = 0; d < dim; ++d) {
    Vec q = load(queries + d * LANES);
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) sum[j] += q * keys[j * PITCH + d];
  }
#pragma GCC unroll 16
  for (int j = 0; j < N; ++j) store(out + j * LANES, sum[j]), most = max(sum[j], most);
  return most;
}

template <int PITCH>
Vec dots(int n, const float* queries, const float* keys, Int dim, const Vec* init, Vec most, float* out) {
  switch (n) {
#define CASE(N) case N: return dots<PITCH, N>(queries, keys, dim, init, most, out);
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
  }
  return most;
}

struct Halo {  // of one tile, in the packed keys of its item
  Int z, y, x;  // first key
  Int nz, ny, nx;
  Int rows, width;  // of a plane, of a row, in keys
  const Vec* mask[3];

  Int size() const { return nz * ny * nx; }
};

// scores (halo, LANES) = masks or bias + queries (dim, LANES) * keys; returns the largest per query.
template <int PITCH>
Vec all_dots(const Halo& halo, const float* queries, const float* keys, Int dim, const float* init, bool masked,
              float* out) {
  const int most = std::min(12, ACCUMULATORS);
  Int blocks = (halo.nx + most - 1) / most;
  Vec start[12] = {}, largest = splat(-INFINITY);
  for (Int z = 0; z < halo.nz; ++z)
    for (Int y = 0; y < halo.ny; ++y) {
      const float* row = keys + (((halo.z + z) * halo.rows + halo.y + y) * halo.width + halo.x) * PITCH;
      Vec above = masked && !init ? halo.mask[0][z] + halo.mask[1][y] : Vec{};
      for (Int block = 0; block < blocks; ++block) {
        Int first = halo.nx * block / blocks, n = halo.nx * (block + 1) / blocks - first;
        if (init)
          for (Int j = 0; j < n; ++j) start[j] = load(init + j * LANES);
        else if (masked)
          for (Int j = 0; j < n; ++j) start[j] = above + halo.mask[2][first + j];
        largest = dots<PITCH>(int(n), queries, row + first * PITCH, dim, start, largest, out);
        out += n * LANES;
        if (init) init += n * LANES;
      }
    }
  return largest;
}

// out[q][d] = sum over the halo of weights[key][q] * values[key][d], for QUERIES queries and VECS vectors of d.
template <int QUERIES, int VECS>
INLINE void weighted_sum(const Halo& halo, Int pitch, const float* weights, const float* values, float* out) {
  Vec sum[QUERIES][VECS] = {};
  for (Int z = 0; z < halo.nz; ++z)
    for (Int y = 0; y < halo.ny; ++y) {
      const float* v = values + (((halo.z + z) * halo.rows + halo.y + y) * halo.width + halo.x) * pitch;
      for (Int x = 0; x < halo.nx; ++x, v += pitch, weights += LANES) {
        Vec value[VECS];
#pragma GCC unroll 4
        for (int i = 0; i < VECS; ++i) value[i] = load(v + i * LANES);
#pragma GCC unroll 16
        for (int q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
          for (int i = 0; i < VECS; ++i) sum[q][i] += weights[q] * value[i];
      }
    }
#pragma GCC unroll 16
  for (int q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < VECS; ++i) store(out + q * pitch + i * LANES, sum[q][i]);
}

void all_weighted_sums(const Halo& halo, Int pitch, Int vecs, const float* weights, const float* values, float* out) {
  constexpr int two = std::min(LANES, ACCUMULATORS / 2), one = std::min(LANES, ACCUMULATORS);
  Int i = 0;
  for (; i + 2 <= vecs; i += 2)
    for (int q = 0; q < LANES; q += two)
      weighted_sum<two, 2>(halo, pitch, weights + q, values + i * LANES, out + q * pitch + i * LANES);
  for (; i < vecs; ++i)
    for (int q = 0; q < LANES; q += one)
      weighted_sum<one, 1>(halo, pitch, weights + q, values + i * LANES, out + q * pitch + i * LANES);
}

// out[key][d] += sum over the tile of weights[key][q] * rows[q][d], for KEYS keys and VECS vectors of d.
template <int KEYS, int VECS>
INLINE void scatter(Int pitch, const float* weights, const float* rows, float* out) {
  Vec sum[KEYS][VECS];
#pragma GCC unroll 16
  for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 4
    for (int i = 0; i < VECS; ++i) sum[k][i] = load(out + k * pitch + i * LANES);
  for (int q = 0; q < LANES; ++q) {
    Vec row[VECS];
#pragma GCC unroll 4
    for (int i = 0; i < VECS; ++i) row[i] = load(rows + q * pitch + i * LANES);
#pragma GCC unroll 16
    for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 4
      for (int i = 0; i < VECS; ++i) sum[k][i] += weights[k * LANES + q] * row[i];
  }
#pragma GCC unroll 16
  for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 4
    for (int i = 0; i < VECS; ++i) store(out + k * pitch + i * LANES, sum[k][i]);
}

template <int VECS>
void scatter(int n, Int pitch, const float* weights, const float* rows, float* out) {
  switch (n) {
#define CASE(N) case N: scatter<N, VECS>(pitch, weights, rows, out); break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
  }
}

void all_scatter(const Halo& halo, Int pitch, Int vecs, const float* weights, const float* rows, float* out) {
  const int most = std::min(8, ACCUMULATORS / 2);
  Int blocks = (halo.nx + most - 1) / most;
  for (Int z = 0; z < halo.nz; ++z)
    for (Int y = 0; y < halo.ny; ++y) {
      float* row = out + (((halo.z + z) * halo.rows + halo.y + y) * halo.width + halo.x) * pitch;
      for (Int block = 0; block < blocks; ++block) {
        Int first = halo.nx * block / blocks, n = halo.nx * (block + 1) / blocks - first;
        Int i = 0;
        for (; i + 2 <= vecs; i += 2)
          scatter<2>(int(n), pitch, weights, rows + i * LANES, row + first * pitch + i * LANES);
        for (; i < vecs; ++i)
          scatter<1>(int(n), pitch, weights, rows + i * LANES, row + first * pitch + i * LANES);
        weights += n * LANES;
      }
    }
}

// Scores to probabilities times the returned sum; the largest probability becomes 1.
Vec exponentials(Int n, Vec most, float* scores) {
  Vec sum = {};
  for (Int j = 0; j < n; ++j) {
    Vec p = power_of_two(load(scores + j * LANES) - most);
    sum += p;
    store(scores + j * LANES, p);
  }
  return sum;
}

// --- One item ---------------------------------------------------------------------------------------------------------

struct Worker {
  const Problem& problem;
  const Strided &query, &key, &value;
  Int vecs, pitch;
  Scratch scratch;
  const Item* item = nullptr;
  Int low[3] = {}, extent[3] = {};  // keys of the item: first one and number, in its map
  int bias_pattern[3] = {-1, -1, -1};
  const Int table;
  float* const bias_gradients;  // (items, table)

  Worker(const Problem& problem, const Strided& query, const Strided& key, const Strided& value, Int pitch,
         float* bias_gradients = nullptr)
      : problem(problem), query(query), key(key), value(value), vecs((problem.dim + LANES - 1) / LANES), pitch(pitch),
        table(bias_size(problem)), bias_gradients(bias_gradients) {
    for (Buffer* some : {&scratch.query, &scratch.output_gradient, &scratch.result}) *some = buffer(LANES * pitch);
    for (Buffer* some : {&scratch.query_t, &scratch.output_gradient_t}) *some = buffer(LANES * pitch);
    std::fill_n(scratch.query.get(), LANES * pitch, 0.0f);  // past dim they stay zero
    std::fill_n(scratch.output_gradient.get(), LANES * pitch, 0.0f);
  }

  Int offset(const Strided& x, Int z, Int y, Int i) const {  // of a position of the item's map
    const Map& map = *item->map;
    const Int place[3] = {z, y, i};
    Int sum = item->batch * x.batch + item->head * x.head;
    for (int a = 0; a < 3; ++a) sum += (map.group[a] + problem.dilation[a] * place[a]) * x.axis[a];
    return sum;
  }

  template <class F>
  void rows(const Strided& x, F&& function) const {  // function(packed offset, element offset) for every key
    Int packed = 0, step = problem.dilation[2] * x.axis[2];
    for (Int z = 0; z < extent[0]; ++z)
      for (Int y = 0; y < extent[1]; ++y) {
        Int at = offset(x, low[0] + z, low[1] + y, low[2]);
        for (Int i = 0; i < extent[2]; ++i, at += step, packed += pitch) function(packed, at);
      }
  }

  void pack(const Strided& x, float* to) const {
    rows(x, [&](Int packed, Int at) {
      copy_scaled(x.data + at, problem.dim, 1, to + packed);
      for (Int d = problem.dim; d < vecs * LANES; ++d) to[packed + d] = 0;
    });
  }

  void unpack(const float* from, float factor, const Strided& to) const {
    rows(to, [&](Int packed, Int at) {
      for (Int d = 0; d < problem.dim; ++d) to.data[at + d] += from[packed + d] * factor;
    });
  }

  void begin(const Item& next, bool backward) {
    const Map* before = item ? item->map : nullptr;
    item = &next;
    const Map& map = *item->map;
    Int positions = 1;
    for (int a = 0; a < 3; ++a) {
      const Axis& axis = map.axes[a];
      low[a] = 0, extent[a] = axis.length;
      if (a == map.outer) {
        const Tile& last = axis.tiles[item->last - 1];
        low[a] = axis.tiles[item->first].key;
        extent[a] = last.key + axis.patterns[last.pattern].keys - low[a];
      }
      positions *= extent[a];
    }
    Int halo = map.most_keys * LANES;
    if (before != item->map || positions * pitch > capacity) {
      capacity = positions * pitch;
      scratch.keys = buffer(capacity), scratch.values = buffer(capacity);
      if (backward) scratch.key_gradients = buffer(capacity), scratch.value_gradients = buffer(capacity);
      scratch.scores = buffer(halo);
      if (backward) scratch.gradients = buffer(halo);
      if (problem.bias) scratch.bias = buffer(halo);
      if (bias_gradients) scratch.bias_gradient = buffer(halo);
    }
    pack(key, scratch.keys.get());
    pack(value, scratch.values.get());
    if (backward) {
      std::fill_n(scratch.key_gradients.get(), positions * pitch, 0.0f);
      std::fill_n(scratch.value_gradients.get(), positions * pitch, 0.0f);
    }
    bias_pattern[0] = -1;
  }
  Int capacity = 0;

  template <class F>
  void tiles(F&& function) {  // function(tile along z, y, x)
    const Map& map = *item->map;
    Int first[3] = {}, last[3];
    for (int a = 0; a < 3; ++a) last[a] = Int(map.axes[a].tiles.size());
    first[map.outer] = item->first, last[map.outer] = item->last;
    for (Int z = first[0]; z < last[0]; ++z)
      for (Int y = first[1]; y < last[1]; ++y)
        for (Int x = first[2]; x < last[2]; ++x)
          function(map.axes[0].tiles[z], map.axes[1].tiles[y], map.axes[2].tiles[x]);
  }

  Halo halo(const Tile& z, const Tile& y, const Tile& x) const {
    const Map& map = *item->map;
    Halo halo{z.key - low[0], y.key - low[1], x.key - low[2], 0, 0, 0, extent[1], extent[2], {}};
    halo.nz = map.axes[0].patterns[z.pattern].keys, halo.mask[0] = &map.masks[0][map.mask_at[0][z.pattern]];
    halo.ny = map.axes[1].patterns[y.pattern].keys, halo.mask[1] = &map.masks[1][map.mask_at[1][y.pattern]];
    halo.nx = map.axes[2].patterns[x.pattern].keys, halo.mask[2] = &map.masks[2][map.mask_at[2][x.pattern]];
    return halo;
  }

  template <class F>
  void lanes(const Strided& x, const Tile& tz, const Tile& ty, const Tile& tx, F&& function) const {
    const std::vector<Axis>& axes = item->map->axes;  // function(lane, element offset, inside the map)
    const Int *along = x.axis, *group = item->map->group, *dilation = problem.dilation;
    const Int first = item->batch * x.batch + item->head * x.head;
    int lane = 0;
    for (Int z = tz.query; z < tz.query + axes[0].size; ++z) {
      bool z_inside = z < axes[0].length;
      Int z_at = first + (group[0] + dilation[0] * (z_inside ? z : axes[0].length - 1)) * along[0];
      for (Int y = ty.query; y < ty.query + axes[1].size; ++y) {
        bool y_inside = z_inside && y < axes[1].length;
        Int y_at = z_at + (group[1] + dilation[1] * (y < axes[1].length ? y : axes[1].length - 1)) * along[1];
        for (Int i = tx.query; i < tx.query + axes[2].size; ++i, ++lane) {
          bool inside = i < axes[2].length;
          Int at = y_at + (group[2] + dilation[2] * (inside ? i : axes[2].length - 1)) * along[2];
          function(lane, at, y_inside && inside);
        }
      }
    }
  }

  // Queries (or gradients of outputs) of a tile as rows and transposed. Outside of the map they are `outside` times the
  // last ones inside.
  void gather(const Strided& x, const Tile& z, const Tile& y, const Tile& tx, float scale, float outside, float* rows,
              float* transposed) const {
    lanes(x, z, y, tx, [&](int lane, Int at, bool inside) {
      copy_scaled(x.data + at, problem.dim, inside ? scale : scale * outside, rows + lane * pitch);
    });
    for (Int d = 0; d < problem.dim; d += 4)
      for (int lane = 0; lane < LANES; lane += 4)
        transpose(rows + lane * pitch + d, pitch, transposed + d * LANES + lane, LANES);
  }

  // Bias and masks of a tile; few tiles in a row have other ones than the tile before.
  const float* bias_of(const Tile& z, const Tile& y, const Tile& x) {
    if (!problem.bias) return nullptr;
    const int wanted[3] = {z.pattern, y.pattern, x.pattern};
    if (std::equal(wanted, wanted + 3, bias_pattern)) return scratch.bias.get();
    flush_bias_gradient();
    std::copy(wanted, wanted + 3, bias_pattern);
    const float* from = problem.bias + item->head * table;
    Halo some = halo(z, y, x);
    float* to = scratch.bias.get();
    each_bias(some, [&](Int element, const Int* index, const Vec& mask) {
      for (int lane = 0; lane < LANES; ++lane) to[element * LANES + lane] = mask[lane] + from[index[lane]] * LOG2_E;
    });
    if (bias_gradients) std::fill_n(scratch.bias_gradient.get(), some.size() * LANES, 0.0f);
    return to;
  }

  template <class F>
  void each_bias(const Halo& halo, F&& function) const {  // function(key, per lane its index into the bias, mask)
    const Map& map = *item->map;
    const Int n[3] = {halo.nz, halo.ny, halo.nx};
    Int places[3][LANES], below = 1;
    for (int a = 2; a >= 0; below *= map.axes[a].size, --a)
      for (int lane = 0; lane < LANES; ++lane)
        places[a][lane] = map.axes[a].patterns[bias_pattern[a]].place[lane / below % map.axes[a].size];
    auto along = [&](int a, Int key, int lane) {  // clamped where it is masked anyway
      return std::min(std::max<Int>(key - places[a][lane] + problem.kernel[a] - 1, 0), 2 * problem.kernel[a] - 2);
    };
    Int element = 0, index[LANES], row[LANES];
    for (Int z = 0; z < n[0]; ++z)
      for (Int y = 0; y < n[1]; ++y) {
        for (int lane = 0; lane < LANES; ++lane)
          row[lane] = (along(0, z, lane) * (2 * problem.kernel[1] - 1) + along(1, y, lane)) * (2 * problem.kernel[2] - 1);
        for (Int x = 0; x < n[2]; ++x, ++element) {
          for (int lane = 0; lane < LANES; ++lane) index[lane] = row[lane] + along(2, x, lane);
          function(element, index, halo.mask[0][z] + halo.mask[1][y] + halo.mask[2][x]);
        }
      }
  }

  void flush_bias_gradient() {
    if (!bias_gradients || bias_pattern[0] < 0) return;
    const Map& map = *item->map;
    float* to = bias_gradients + item->number * table;
    Halo some{};
    some.nz = map.axes[0].patterns[bias_pattern[0]].keys;
    some.ny = map.axes[1].patterns[bias_pattern[1]].keys;
    some.nx = map.axes[2].patterns[bias_pattern[2]].keys;
    for (int a = 0; a < 3; ++a) some.mask[a] = &map.masks[a][map.mask_at[a][bias_pattern[a]]];
    each_bias(some, [&](Int element, const Int* index, const Vec&) {
      for (int lane = 0; lane < LANES; ++lane)
        to[index[lane]] += scratch.bias_gradient.get()[element * LANES + lane];
    });
  }

  template <int PITCH>
  void forward(const Item& next, const Strided& output) {
    begin(next, false);
    tiles([&](const Tile& z, const Tile& y, const Tile& x) {
      Halo some = halo(z, y, x);
      float* scores = scratch.scores.get();
      gather(query, z, y, x, float(problem.scale) * LOG2_E, 1, scratch.query.get(), scratch.query_t.get());
      Vec most = all_dots<PITCH>(some, scratch.query_t.get(), scratch.keys.get(), problem.dim, bias_of(z, y, x), true,
                                 scores);
      Vec sum = exponentials(some.size(), most, scores);
      all_weighted_sums(some, PITCH, vecs, scores, scratch.values.get(), scratch.result.get());
      lanes(output, z, y, x, [&](int lane, Int at, bool inside) {
        if (!inside) return;
        copy_scaled(scratch.result.get() + lane * PITCH, problem.dim, 1 / sum[lane], output.data + at);
      });
    });
  }

  template <int PITCH>
  void backward(const Item& next, const Strided& gradient, const Strided& dq, const Strided& dk, const Strided& dv) {
    begin(next, true);
    tiles([&](const Tile& z, const Tile& y, const Tile& x) {
      Halo some = halo(z, y, x);
      Int n = some.size();
      float *p = scratch.scores.get(), *ds = scratch.gradients.get();
      gather(query, z, y, x, float(problem.scale) * LOG2_E, 1, scratch.query.get(), scratch.query_t.get());
      gather(gradient, z, y, x, 1, 0, scratch.output_gradient.get(), scratch.output_gradient_t.get());
      Vec most = all_dots<PITCH>(some, scratch.query_t.get(), scratch.keys.get(), problem.dim, bias_of(z, y, x), true, p);
      all_dots<PITCH>(some, scratch.output_gradient_t.get(), scratch.values.get(), problem.dim, nullptr, false, ds);
      Vec factor = 1 / exponentials(n, most, p), delta = {};
      for (Int j = 0; j < n; ++j) {
        Vec probability = load(p + j * LANES) * factor;
        store(p + j * LANES, probability);
        delta += probability * load(ds + j * LANES);
      }
      for (Int j = 0; j < n; ++j) store(ds + j * LANES, load(p + j * LANES) * (load(ds + j * LANES) - delta));
      if (bias_gradients) {
        float* sums = scratch.bias_gradient.get();
        for (Int j = 0; j < n; ++j) store(sums + j * LANES, load(sums + j * LANES) + load(ds + j * LANES));
      }
      all_scatter(some, PITCH, vecs, p, scratch.output_gradient.get(), scratch.value_gradients.get());
      all_scatter(some, PITCH, vecs, ds, scratch.query.get(), scratch.key_gradients.get());
      all_weighted_sums(some, PITCH, vecs, ds, scratch.keys.get(), scratch.result.get());
      lanes(dq, z, y, x, [&](int lane, Int at, bool inside) {
        if (!inside) return;
        copy_scaled(scratch.result.get() + lane * PITCH, problem.dim, float(problem.scale), dq.data + at);
      });
    });
    flush_bias_gradient();
    unpack(scratch.key_gradients.get(), LN_2, dk);  // the queries were scaled by its inverse
    unpack(scratch.value_gradients.get(), 1, dv);
  }
};

// --- All items --------------------------------------------------------------------------------------------------------

struct Work {
  std::vector<Map> maps;
  std::vector<Item> items;  // of even bands, then of odd ones
  size_t even = 0;
};

// Bands of a map that are two apart have no keys in common; so gradients are summed without locks, in a fixed order.
bool apart(const Axis& axis, const std::vector<Int>& cuts) {
  for (size_t band = 0; band + 3 < cuts.size(); ++band) {
    const Tile& last = axis.tiles[cuts[band + 1] - 1];
    if (axis.tiles[cuts[band + 2]].key < last.key + axis.patterns[last.pattern].keys) return false;
  }
  return true;
}

std::vector<Int> bands(const Map& map, Int wanted) {
  const Axis& axis = map.axes[map.outer];
  Int tiles = Int(axis.tiles.size());
  for (wanted = std::min({wanted, tiles, std::max<Int>(1, axis.length / axis.window)});; --wanted) {
    std::vector<Int> cuts;
    for (Int band = 0; band <= wanted; ++band) cuts.push_back(tiles * band / wanted);
    if (wanted == 1 || apart(axis, cuts)) return cuts;
  }
}

Work work(const Problem& problem) {
  Work work;
  for (Int z = 0; z < std::min(problem.dilation[0], problem.length[0]); ++z)
    for (Int y = 0; y < std::min(problem.dilation[1], problem.length[1]); ++y)
      for (Int x = 0; x < std::min(problem.dilation[2], problem.length[2]); ++x) work.maps.emplace_back(problem, z, y, x);
  Int alone = problem.batch * problem.heads * Int(work.maps.size());
  Int wanted = problem.threads == 1 ? 1 : (4 * problem.threads + alone - 1) / alone;
  for (const Map& map : work.maps) {
    Int bytes = sizeof(float) * problem.dim * map.axes[0].length * map.axes[1].length * map.axes[2].length;
    wanted = std::max(wanted, bytes / BAND_BYTES);
  }
  for (int odd = 0; odd < 2; ++odd) {
    for (Int batch = 0; batch < problem.batch; ++batch)
      for (Int head = 0; head < problem.heads; ++head)
        for (const Map& map : work.maps) {
          std::vector<Int> cuts = bands(map, wanted);
          for (size_t band = odd; band + 1 < cuts.size(); band += 2)
            work.items.push_back({batch, head, &map, cuts[band], cuts[band + 1], Int(work.items.size())});
        }
    if (!odd) work.even = work.items.size();
  }
  return work;
}

template <class F>
struct Shared {
  const Problem& problem;
  F& function;
  std::atomic<size_t> next;
  size_t end;
  std::atomic<bool> failed{false};

  static void run(void* data) {
    Shared& shared = *static_cast<Shared*>(data);
    try {
      shared.function(shared);
    } catch (const std::bad_alloc&) {
      shared.failed = true;
    }
  }
};

// function(shared) on every thread; it takes items until there are none. False where memory ran out.
template <class F>
bool in_parallel(const Problem& problem, size_t begin, size_t end, F&& function) {
  Shared<F> shared{problem, function, {begin}, end};
  if (begin == end) return true;
  unsigned threads = unsigned(std::min(Int(end - begin), problem.threads));
  if (threads > 1 && problem.parallel) {
    problem.parallel(&Shared<F>::run, &shared, threads, 0);
  } else {
    std::vector<std::thread> others;
    others.reserve(threads);
    try {
      for (unsigned thread = 1; thread < threads; ++thread) others.emplace_back(&Shared<F>::run, &shared);
    } catch (const std::exception&) {
    }  // a limit of threads or memory: those that have begun take all items
    Shared<F>::run(&shared);
    for (std::thread& other : others) other.join();
  }
  return !shared.failed;
}

// Calls function(pitch as a constant).
template <class F>
void with_pitch(Int dim, F&& function) {
  if (dim <= 16) function(std::integral_constant<int, 16>());
  else if (dim <= 32) function(std::integral_constant<int, 32>());
  else if (dim <= 64) function(std::integral_constant<int, 64>());
  else if (dim <= 128) function(std::integral_constant<int, 128>());
  else function(std::integral_constant<int, 256>());
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int eyetoy_interface() { return INTERFACE; }

// 0, or -1 where memory ran out.
EXPORT int eyetoy_forward(const Problem* problem, const Strided* query, const Strided* key, const Strided* value,
                          const Strided* output) {
  try {
    Work all = work(*problem);
    bool done = false;
    with_pitch(problem->dim, [&](auto pitch) {
      done = in_parallel(*problem, 0, all.items.size(), [&](auto& shared) {
        Worker worker(*problem, *query, *key, *value, pitch);
        for (size_t i; (i = shared.next++) < shared.end;) worker.template forward<pitch>(all.items[i], *output);
      });
    });
    return done ? 0 : -1;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// Adds to `dk`, `dv` and the gradient of the bias. 0, or -1 where memory ran out.
EXPORT int eyetoy_backward(const Problem* problem, const Strided* gradient, const Strided* query, const Strided* key,
                    const Strided* value, const Strided* dq, const Strided* dk, const Strided* dv) {
  try {
    Work all = work(*problem);
    const Int table = problem->bias_gradient ? bias_size(*problem) : 0;
    std::vector<float> bias_gradients(all.items.size() * table);  // an item each, and summed in their order
    bool done = true;
    with_pitch(problem->dim, [&](auto pitch) {
      const size_t cuts[3] = {0, all.even, all.items.size()};
      for (int odd = 0; odd < 2 && done; ++odd)
        done = in_parallel(*problem, cuts[odd], cuts[odd + 1], [&](auto& shared) {
          Worker worker(*problem, *query, *key, *value, pitch, table ? bias_gradients.data() : nullptr);
          for (size_t i; (i = shared.next++) < shared.end;)
            worker.template backward<pitch>(all.items[i], *gradient, *dq, *dk, *dv);
        });
    });
    for (const Item& item : all.items)
      for (Int i = 0; i < table; ++i)
        problem->bias_gradient[item.head * table + i] += bias_gradients[item.number * table + i];
    return done ? 0 : -1;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
