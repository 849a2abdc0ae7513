/* Tiles of matrix products, small enough for the registers: what all kernels are made of. */
#ifndef WM_JAX_TILES_H
#define WM_JAX_TILES_H

#include "simd.h"

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* sums[r][v] += sum over j of a[r * stride + j] * b[j * columns + v * LANES ...], for constant rows and vecs.
 * Every element is summed in the order of j, whatever tile it falls into: its bits do not depend on its neighbours. */
INLINE void accumulate(const int rows, const int vecs, vec sums[][4], const float *a, ptrdiff_t stride, int64_t length,
                       const float *b, ptrdiff_t columns) {
  /* Row 3q + i is addressed as base[q] + i * stride, i < 3: all in the few registers that addresses have. */
  const float *base[MAX_ROWS / 3] = {a, a + 3 * stride, a + 6 * stride, a + 9 * stride};
  for (int64_t j = 0; j < length; j++) {
    vec column[4];
    UNROLL for (int v = 0; v < vecs; v++) column[v] = load(b + v * LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      const float factor = base[r / 3][r % 3 * stride];
      UNROLL for (int v = 0; v < vecs; v++) sums[r][v] = multiply_add(factor, column[v], sums[r][v]);
    }
    UNROLL for (int q = 0; q < (rows + 2) / 3; q++) base[q]++;
    b += columns;
  }
}

/* How many tiles a run of rows makes, and where tile t begins: they differ by one row at most. */
INLINE int64_t tiles_of(int64_t rows, int64_t most) { return (rows + most - 1) / most; }
INLINE int64_t tile_begin(int64_t t, int64_t tiles, int64_t rows) { return t * rows / tiles; }

/* Calls f(R, ...) with R the constant that equals `rows`. */
#define FOR_ROWS(rows, f, ...)              \
  switch (rows) {                           \
    case 1: f(1, __VA_ARGS__); break;       \
    case 2: f(2, __VA_ARGS__); break;       \
    case 3: f(3, __VA_ARGS__); break;       \
    case 4: f(4, __VA_ARGS__); break;       \
    case 5: f(5, __VA_ARGS__); break;       \
    case 6: f(6, __VA_ARGS__); break;       \
    case 7: f(7, __VA_ARGS__); break;       \
    case 8: f(8, __VA_ARGS__); break;       \
    case 9: f(9, __VA_ARGS__); break;       \
    case 10: f(10, __VA_ARGS__); break;     \
    case 11: f(11, __VA_ARGS__); break;     \
    case 12: f(12, __VA_ARGS__); break;     \
    default: __builtin_unreachable();       \
  }

/* ---- Rows times columns ---- */

/* `length` neighbours at `a` of every row, times as many rows of the weights from `b` on. */
typedef struct {
  ptrdiff_t a, b;
  int64_t length;
} Span;

/* Rows of one product: their inputs and their outputs lie at equal distances. */
typedef struct {
  const float *a;
  ptrdiff_t a_stride, place, c_stride;
  int64_t count;
} Run;

/* Where sums go, and what becomes of them first. */
typedef struct {
  float *c;
  int64_t width;     /* of a pixel */
  const float *bias; /* is added, unless NULL */
  int64_t relu;
  const float *mask; /* like c: the output is 0 where this is not positive; or NULL */
} Finish;

INLINE void finish_tile(const int rows, const int vecs, vec sums[][4], const Run *run, int64_t first, int64_t n,
                        const Finish *finish) {
  UNROLL for (int v = 0; v < vecs; v++) {
    const int left = (int)(finish->width - n) - v * LANES;
    const vec bias = finish->bias ? load_part(finish->bias + n + v * LANES, left) : (vec){0};
    UNROLL for (int r = 0; r < rows; r++) {
      const ptrdiff_t place = run->place + (first + r) * run->c_stride + n + v * LANES;
      vec x = sums[r][v] + bias;
      if (finish->relu) x = where(~(x < 0.0f), x); /* keeps NaN */
      if (finish->mask) x = where(load_part(finish->mask + place, left) > 0.0f, x);
      store_part(finish->c + place, x, left);
    }
  }
}

#define PRODUCT(R, V)                                                                                     \
  {                                                                                                       \
    vec sums[R][4];                                                                                       \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) sums[r][v] = (vec){0};          \
    for (int s = 0; s < count; s++)                                                                       \
      accumulate(R, V, sums, run->a + first * run->a_stride + spans[s].a, run->a_stride, spans[s].length, \
                 b + spans[s].b, columns);                                                            \
    finish_tile(R, V, sums, run, first, n, finish);                                                       \
  }
#define PRODUCT_ROWS(R, _) \
  if (vecs == 2) PRODUCT(R, 2) else PRODUCT(R, 1)

/* A run's outputs n .. n + PANEL - 1. b is the first of their columns of weights, whose rows are `columns` numbers apart;
 * no vector may reach beyond a row. */
__attribute__((unused)) static void product(const Run *run, const Span *spans, int count, const float *b, int64_t columns, int64_t n,
                    const Finish *finish) {
  const int vecs = finish->width - n > LANES ? 2 : 1;
  const int64_t tiles = tiles_of(run->count, ROWS);
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = tile_begin(t, tiles, run->count);
    FOR_ROWS(tile_begin(t + 1, tiles, run->count) - first, PRODUCT_ROWS, 0)
  }
}

/* ---- Columns times columns ---- */

/* Three loops over rows, and how far one round moves in both factors. */
typedef struct {
  int64_t count[3];
  ptrdiff_t a[3], b[3];
} Nest;

/* Between memory, [rows, width], and a tile of `left` columns. */
static inline void take_rows(int64_t rows, vec made[][2], const float *out, int64_t width, int left) {
  for (int64_t r = 0; r < rows; r++)
    for (int v = 0; v < 2; v++) made[r][v] = load_part(out + r * width + v * LANES, left - v * LANES);
}
static inline void put_rows(int64_t rows, vec made[][2], float *out, int64_t width, int left) {
  for (int64_t r = 0; r < rows; r++)
    for (int v = 0; v < 2; v++) store_part(out + r * width + v * LANES, made[r][v], left - v * LANES);
}

/* made[r] += sum over all rounds of a[r] * b[n], r < rows, n < left; `full` says that left is a multiple of LANES. */
#define OUTER(R, V)                                                                                            \
  {                                                                                                            \
    vec sums[R][2];                                                                                            \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) sums[r][v] = made[r][v];             \
    for (int64_t i = 0; i < nest->count[0]; i++)                                                               \
      for (int64_t j = 0; j < nest->count[1]; j++) {                                                           \
        const float *a = at_a + i * nest->a[0] + j * nest->a[1];                                               \
        const float *b = at_b + i * nest->b[0] + j * nest->b[1];                                               \
        for (int64_t l = 0; l < nest->count[2]; l++, a += nest->a[2], b += nest->b[2]) {                       \
          vec column[V];                                                                                       \
          UNROLL for (int v = 0; v < V; v++)                                                                   \
            column[v] = full ? load(b + v * LANES) : load_part(b + v * LANES, left - v * LANES);               \
          UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)                                \
            sums[r][v] = multiply_add(a[r], column[v], sums[r][v]);                                            \
        }                                                                                                      \
      }                                                                                                        \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) made[r][v] = sums[r][v];             \
  }
#define OUTER_ROWS(R, _) \
  if (left > LANES) OUTER(R, 2) else OUTER(R, 1)

INLINE void add_rounds(const int full, int64_t rows, vec made[][2], const Nest *nest, const float *at_a,
                       const float *at_b, int left) {
  FOR_ROWS(rows, OUTER_ROWS, 0)
}

/* out[r * width + n] (+)= that sum, n < left <= PANEL; `fresh` starts from 0. */
__attribute__((unused)) static void outer_tile(int64_t rows, const Nest *nest, const float *at_a, const float *at_b, float *out,
                                               int64_t width, int left, int fresh) {
  vec made[MAX_ROWS][2] = {0};
  if (!fresh) take_rows(rows, made, out, width, left);
  if (left % LANES == 0) add_rounds(1, rows, made, nest, at_a, at_b, left);
  else add_rounds(0, rows, made, nest, at_a, at_b, left);
  put_rows(rows, made, out, width, left);
}

#endif
