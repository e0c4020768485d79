// Grouped convolutions whose kernel is their stride, on channels-last maps, float32: every cell of a map becomes a token.
// PyTorch's have layouts of their own, or a loop over groups, where a group has a dozen channels.
//
// A vector holds one channel of LANES tokens, so that a group of any width fills it; rows of the map are transposed to
// that and back in blocks of 4 x 4. An item of work is a chunk of groups that is whole cache lines of a row, or a band
// of the tokens of one.

#pragma once

#include "neighborhood.h"

namespace {

constexpr Int MOST = 12;   // sums that registers hold
constexpr Int TURN = 4;    // tiles of LANES tokens that the gradient of the weight takes at once
constexpr Int BAND = 64;   // tiles of an item where there are several threads

// `row[4]` side by side, to[column][row]; and back.
INLINE void transpose(const float* const* row, Int column, float* to, Int to_apart) {
  float block[16];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(block + 4 * i, row[i] + column, 16);
  transpose(block, 4, to, to_apart);
}
INLINE void transpose(const float* from, Int apart, float* const* row, Int column) {
  float block[16];
  transpose(from, apart, block, 4);
  for (int i = 0; i < 4; ++i) __builtin_memcpy(row[i] + column, block + 4 * i, 16);
}

// out[n] = init[n] + sum over `outer` blocks of `inner` vectors of vector * weights[vector][n], for N sums.
template <int N>
INLINE void sums(const float* vectors, Int outer, Int apart, Int inner, const float* weights, Int width,
                 const float* init, float* out) {
  Vec sum[N];
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) sum[n] = splat(init ? init[n] : 0.0f);
  for (Int block = 0; block < outer; ++block, vectors += apart * LANES)
    for (Int i = 0; i < inner; ++i, weights += width) {
      Vec v = load(vectors + i * LANES);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sum[n] += v * weights[n];
    }
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) store(out + n * LANES, sum[n]);
}

// The same for `width` sums.
void all_sums(const float* vectors, Int outer, Int apart, Int inner, const float* weights, Int width,
              const float* init, float* out) {
  for (Int n = 0; n < width;) {
    const float* from = init ? init + n : nullptr;
#define BLOCK(N) \
  if (width - n >= N) { \
    sums<N>(vectors, outer, apart, inner, weights + n, width, from, out + n * LANES), n += N; \
    continue; \
  }
    BLOCK(12) BLOCK(8) BLOCK(6) BLOCK(4) BLOCK(2) BLOCK(1)
#undef BLOCK
  }
}

// out[o][i] += sum over tiles of left[o] * right[i], all vectors.
template <int O, int I>
INLINE void outer_products(const float* left, Int left_apart, const float* right, Int right_apart, Int tiles, float* out,
                           Int width) {
  Vec sum[O][I];
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) sum[o][i] = load(out + (o * width + i) * LANES);
  for (Int tile = 0; tile < tiles; ++tile, left += left_apart * LANES, right += right_apart * LANES) {
    Vec r[I];
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) r[i] = load(right + i * LANES);
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      Vec l = load(left + o * LANES);
#pragma GCC unroll 4
      for (int i = 0; i < I; ++i) sum[o][i] += l * r[i];
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o)
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) store(out + (o * width + i) * LANES, sum[o][i]);
}

struct Cells {
  const Convolution& c;
  Int cell = 1, tokens = 1, tiles, chunk;  // positions of a cell, tokens of the batch, tiles of them, groups of a chunk
  std::vector<Int> at;  // (tiles, cell, LANES): rows of the map, -1 past the last token

  explicit Cells(const Convolution& c) : c(c) {
    Int count[3];
    for (int a = 0; a < 3; ++a) cell *= c.merging[a], count[a] = c.length[a] / c.merging[a], tokens *= count[a];
    tokens *= c.batch;
    tiles = (tokens + LANES - 1) / LANES;
    chunk = 1;
    while (chunk * 2 <= c.groups && chunk * c.in % 16 != 0) chunk *= 2;
    at.assign(tiles * cell * LANES, -1);
    Int token = 0;
    for (Int b = 0; b < c.batch; ++b)
      for (Int z = 0; z < count[0]; ++z)
        for (Int y = 0; y < count[1]; ++y)
          for (Int x = 0; x < count[2]; ++x, ++token) {
            Int* to = &at[token / LANES * cell * LANES + token % LANES];
            for (Int dz = 0; dz < c.merging[0]; ++dz)
              for (Int dy = 0; dy < c.merging[1]; ++dy)
                for (Int dx = 0; dx < c.merging[2]; ++dx, to += LANES)
                  *to = ((b * c.length[0] + z * c.merging[0] + dz) * c.length[1] + y * c.merging[1] + dy) * c.length[2] +
                        x * c.merging[2] + dx;
          }
  }

  Int chunks() const { return (c.groups + chunk - 1) / chunk; }
};

struct Merger {  // of one thread
  const Cells& cells;
  const Convolution& c;
  Int first = 0, groups = 0;  // of the chunk
  Buffer weights, map, tokens, spare, products;
  std::vector<Int> numbers = std::vector<Int>(LANES);

  explicit Merger(const Cells& cells)
      : cells(cells), c(cells.c), weights(buffer(cells.chunk * c.out * c.in * cells.cell)),
        map(buffer(std::max(cells.cell, TURN) * cells.chunk * c.in * LANES)),
        tokens(buffer(TURN * cells.chunk * c.out * LANES)), spare(buffer(cells.chunk * std::max(c.in, c.out))),
        products(buffer(cells.chunk * c.out * (c.in + 1) * LANES + 4 * LANES)) {
    std::fill_n(spare.get(), cells.chunk * std::max(c.in, c.out), 0.0f);
  }

  void begin(Int index) {
    first = index * cells.chunk;
    groups = std::min(cells.chunk, c.groups - first);
  }

  const Int* rows(Int tile, Int position) const { return &cells.at[(tile * cells.cell + position) * LANES]; }
  const Int* token_rows(Int tile) {
    for (Int lane = 0; lane < LANES; ++lane)
      numbers[lane] = tile * LANES + lane < cells.tokens ? tile * LANES + lane : -1;
    return numbers.data();
  }

  // to[channel][lane] = from[at[lane]][channel]; zeros where there is no row.
  void gather(const float* from, const Int* at, Int width, Int channels, float* to) {
    std::fill_n(spare.get(), channels, 0.0f);
    for (Int lane = 0; lane < LANES; lane += 4) {
      const float* row[4];
      for (int i = 0; i < 4; ++i) row[i] = at[lane + i] < 0 ? spare.get() : from + at[lane + i] * width;
      Int channel = 0;
      for (; channel + 4 <= channels; channel += 4) transpose(row, channel, to + channel * LANES + lane, LANES);
      for (; channel < channels; ++channel)
        for (int i = 0; i < 4; ++i) to[channel * LANES + lane + i] = row[i][channel];
    }
  }

  // to[at[lane]][channel] = from[channel][lane]
  void scatter(const float* from, const Int* at, Int width, Int channels, float* to) {
    for (Int lane = 0; lane < LANES; lane += 4) {
      float* row[4];
      for (int i = 0; i < 4; ++i) row[i] = at[lane + i] < 0 ? spare.get() : to + at[lane + i] * width;
      Int channel = 0;
      for (; channel + 4 <= channels; channel += 4) transpose(from + channel * LANES + lane, LANES, row, channel);
      for (; channel < channels; ++channel)
        for (int i = 0; i < 4; ++i) row[i][channel] = from[channel * LANES + lane + i];
    }
  }

  // The chunk's weights as (groups, cell, in, out), or with the last two exchanged.
  void pack(const float* from, bool out_is_last) {
    Int in_apart = out_is_last ? c.out : 1, out_apart = out_is_last ? 1 : c.in;
    for (Int group = 0; group < groups; ++group)
      for (Int o = 0; o < c.out; ++o) {
        const float* row = from + ((first + group) * c.out + o) * c.in * cells.cell;
        float* to = weights.get() + group * cells.cell * c.in * c.out + o * out_apart;
        for (Int i = 0; i < c.in; ++i)
          for (Int p = 0; p < cells.cell; ++p) to[p * c.in * c.out + i * in_apart] = *row++;
      }
  }

  void forward(Int begin, Int end, const float* x, const float* bias, float* y) {
    Int in = groups * c.in, out = groups * c.out;
    for (Int tile = begin; tile < end; ++tile) {
      for (Int p = 0; p < cells.cell; ++p)
        gather(x + first * c.in, rows(tile, p), c.groups * c.in, in, map.get() + p * in * LANES);
      for (Int group = 0; group < groups; ++group)
        all_sums(map.get() + group * c.in * LANES, cells.cell, in, c.in,
                 weights.get() + group * cells.cell * c.in * c.out, c.out,
                 bias ? bias + (first + group) * c.out : nullptr, tokens.get() + group * c.out * LANES);
      scatter(tokens.get(), token_rows(tile), c.groups * c.out, out, y + first * c.out);
    }
  }

  void inputs(Int begin, Int end, const float* dy, float* dx) {
    Int in = groups * c.in, out = groups * c.out;
    for (Int tile = begin; tile < end; ++tile) {
      gather(dy + first * c.out, token_rows(tile), c.groups * c.out, out, tokens.get());
      for (Int p = 0; p < cells.cell; ++p) {
        for (Int group = 0; group < groups; ++group)
          all_sums(tokens.get() + group * c.out * LANES, 1, 0, c.out,
                   weights.get() + (group * cells.cell + p) * c.in * c.out, c.in, nullptr,
                   map.get() + group * c.in * LANES);
        scatter(map.get(), rows(tile, p), c.groups * c.in, in, dx + first * c.in);
      }
    }
  }

  void parameters(const float* dy, const float* x, float* dw, float* db) {
    Int in = groups * c.in, out = groups * c.out, pairs = out * c.in;
    float *sums = products.get(), *bias_sums = sums + pairs * LANES;
    std::fill_n(bias_sums, out * LANES, 0.0f);
    for (Int p = 0; p < cells.cell; ++p) {
      std::fill_n(sums, pairs * LANES, 0.0f);
      for (Int tile = 0; tile < cells.tiles; tile += TURN) {
        Int now = std::min(TURN, cells.tiles - tile);
        for (Int t = 0; t < now; ++t) {
          gather(dy + first * c.out, token_rows(tile + t), c.groups * c.out, out, tokens.get() + t * out * LANES);
          gather(x + first * c.in, rows(tile + t, p), c.groups * c.in, in, map.get() + t * in * LANES);
          for (Int o = 0; p == 0 && o < out; ++o)
            store(bias_sums + o * LANES, load(bias_sums + o * LANES) + load(tokens.get() + (t * out + o) * LANES));
        }
        for (Int group = 0; group < groups; ++group) products_of(group, now, sums + group * c.out * c.in * LANES);
      }
      lane_sums(sums, pairs, dw + first * c.out * c.in * cells.cell + p, cells.cell);
    }
    lane_sums(bias_sums, out, db + first * c.out, 1);
  }

  void products_of(Int group, Int now, float* out) {
    Int in = groups * c.in, outs = groups * c.out;
    auto with = [](Int left, auto&& function) {  // the largest block that fits
      if (left >= 4) return function(std::integral_constant<int, 4>());
      if (left >= 2) return function(std::integral_constant<int, 2>());
      return function(std::integral_constant<int, 1>());
    };
    for (Int o = 0; o < c.out;)
      o += with(c.out - o, [&](auto rows) -> Int {
        for (Int i = 0; i < c.in;)
          i += with(c.in - i, [&](auto columns) -> Int {
            outer_products<rows(), columns()>(tokens.get() + (group * c.out + o) * LANES, outs,
                                              map.get() + (group * c.in + i) * LANES, in, now,
                                              out + (o * c.in + i) * LANES, c.in);
            return columns();
          });
        return rows();
      });
  }

  // to[i * apart] = sum of the lanes of the i-th vector; reads up to three vectors more.
  static void lane_sums(const float* vectors, Int n, float* to, Int apart) {
    for (Int i = 0; i < n; i += 4, vectors += 4 * LANES) {
      Four part[4], column[4];
      for (int j = 0; j < 4; ++j) {
        part[j] = Four{};
        for (int lane = 0; lane < LANES; lane += 4) {
          Four four;
          __builtin_memcpy(&four, vectors + j * LANES + lane, 16);
          part[j] += four;
        }
      }
      transpose(reinterpret_cast<const float*>(part), 4, reinterpret_cast<float*>(column), 4);
      Four sum = (column[0] + column[1]) + (column[2] + column[3]);
      for (int j = 0; j < 4 && i + j < n; ++j) to[(i + j) * apart] = sum[j];
    }
  }
};

// function(merger, first tile, last tile) for each chunk of groups and band of tiles. 0, or -1 where memory ran out.
template <class F>
int each_chunk(const Convolution& c, bool cut, F&& function) {
  try {
    Cells cells(c);
    Problem problem{};
    problem.threads = c.threads, problem.parallel = c.parallel;
    Int bands = cut && c.threads > 1 ? (cells.tiles + BAND - 1) / BAND : 1;
    return in_parallel(problem, 0, size_t(cells.chunks() * bands), [&](auto& shared) {
      Merger merger(cells);
      for (size_t i; (i = shared.next++) < shared.end;) {
        Int band = Int(i) % bands;
        merger.begin(Int(i) / bands);
        function(merger, cells.tiles * band / bands, cells.tiles * (band + 1) / bands);
      }
    }) ? 0 : -1;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace

// Tokens of a map; `bias` may be null.
EXPORT int eyetoy_cells(const Convolution* c, const float* x, const float* weight, const float* bias, float* y) {
  return each_chunk(*c, true, [&](Merger& merger, Int begin, Int end) {
    merger.pack(weight, true);
    merger.forward(begin, end, x, bias, y);
  });
}

// The gradient of the map.
EXPORT int eyetoy_cells_input(const Convolution* c, const float* dy, const float* weight, float* dx) {
  return each_chunk(*c, true, [&](Merger& merger, Int begin, Int end) {
    merger.pack(weight, false);
    merger.inputs(begin, end, dy, dx);
  });
}

// The gradients of weight and bias.
EXPORT int eyetoy_cells_parameters(const Convolution* c, const float* dy, const float* x, float* dw, float* db) {
  return each_chunk(*c, false, [&](Merger& merger, Int, Int) { merger.parameters(dy, x, dw, db); });
}
