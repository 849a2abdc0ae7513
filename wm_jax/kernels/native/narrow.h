/* Products of bfloat16 that are added up in float32, by the processor's own instructions.
 *
 * Two neighbouring numbers are one element of four bytes, a pair: a row of the left factor is a chain of pairs, and the
 * right factor is packed as pairs of rows, in panels of PANEL columns. AVX512-BF16 multiplies a pair by 16 pairs at once,
 * AMX 16 rows of up to 16 pairs by as many pairs of 16 columns. Both add up each output in the order of its pairs,
 * whatever rows are beside it. */
#ifndef WM_JAX_NARROW_H
#define WM_JAX_NARROW_H

#include "tiles.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define NARROW 1
#endif

#ifdef NARROW

enum { TILE = 16, BLOCK = 2 * TILE };

typedef uint32_t pair;
typedef uint16_t narrow;

/* 1: AMX may be used. The system must have been asked (`wm_jax_narrow`). */
static int tiles_allowed = 0;

INLINE vec widen(const narrow *p) { return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16); }
INLINE vec widen_part(const narrow *p, int count) {
  if (count >= LANES) return widen(p);
  narrow some[LANES] = {0};
  if (count > 0) memcpy(some, p, 2 * (size_t)count);
  return widen(some);
}
INLINE __m256i rounded(vec x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }

/* ---- The right factor ---- */

/* rows[i][j] and rows[j][i] change places. */
static inline void transpose(__m512i *rows) {
  __m512i half[16];
  for (int i = 0; i < 16; i += 2) {
    half[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    half[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      rows[i + 2 * j] = _mm512_unpacklo_epi64(half[i + j], half[i + j + 2]);
      rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(half[i + j], half[i + j + 2]);
    }
  /* Now quarter q of rows[4 g + j] holds column 4 q + j of the rows 4 g .. 4 g + 3. */
  for (int j = 0; j < 4; j++) {
    const __m512i a = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88), b = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd), d = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    half[j] = _mm512_shuffle_i32x4(a, b, 0x88), half[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
    half[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88), half[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
  memcpy(rows, half, sizeof half);
}

/* Matrices [rows, columns] of float32, an even number of rows, all below one another as pairs of rows
 * [panel][count * rows / 2][PANEL]. */
typedef struct {
  const float *matrices;
  int64_t count, rows, columns;
  pair *out;
} Packing;

/* Where the columns from n on of a pair of rows go. */
INLINE pair *packed_row(const Packing *p, int64_t row, int64_t n) {
  return p->out + (n / PANEL * (p->count * p->rows / 2) + row) * PANEL + n % PANEL;
}

/* One pair of rows. */
static void pack_rows(void *data, int64_t task) {
  const Packing *p = data;
  const float *first = p->matrices + 2 * task * p->columns, *second = first + p->columns;
  for (int64_t n = 0; n < p->columns; n += LANES) {
    const int left = (int)(p->columns - n);
    const __m512i low = _mm512_cvtepu16_epi32(rounded(load_part(first + n, left)));
    const __m512i high = _mm512_cvtepu16_epi32(rounded(load_part(second + n, left)));
    _mm512_storeu_si512(packed_row(p, task, n), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

/* Of matrices that lie transposed, [columns, rows]: LANES pairs of rows of one. */
static void pack_transposed(void *data, int64_t task) {
  const Packing *p = data;
  const int64_t parts = tiles_of(p->rows, 2 * LANES), matrix = task / parts, row = task % parts * 2 * LANES;
  const int left = (int)(p->rows - row);
  for (int64_t n = 0; n < p->columns; n += LANES) {
    __m512i pairs[LANES];
    for (int i = 0; i < LANES; i++) {
      const float *from = p->matrices + (matrix * p->columns + least(n + i, p->columns - 1)) * p->rows + row;
      const vec low = load_part(from, left), high = load_part(from + LANES, left - LANES);
      pairs[i] = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    }
    transpose(pairs);
    for (int i = 0; i < least(LANES, left / 2); i++)
      _mm512_storeu_si512(packed_row(p, (matrix * p->rows + row) / 2 + i, n), pairs[i]);
  }
}

/* ---- The product ---- */

/* `length` neighbouring pairs at `a` of every row, times as many rows of a panel from row `b` on. */
typedef struct {
  ptrdiff_t a, b;
  int64_t length;
} Chain;

/* Up to BLOCK rows of a product: two halves of up to TILE, whose rows lie at equal distances. Distances of inputs are in
 * pairs, those of outputs in numbers. */
typedef struct {
  const pair *a;
  ptrdiff_t a_stride, a_half, place, c_stride, c_half;
  int rows[2];
} Rows;

/* Where sums go, and what becomes of them first. */
typedef struct {
  void *c;
  int is_narrow;     /* c holds bfloat16 */
  int64_t width;     /* of a pixel */
  const float *bias; /* is added, unless NULL */
  int64_t relu;
  const narrow *mask; /* like c: the output is 0 where this is not positive; or NULL */
  int add;            /* to what is there (float32) */
} Ending;

static void end_row(const float *sums, ptrdiff_t place, int64_t n, const Ending *e) {
  for (int64_t at = n; at < least(n + PANEL, e->width); at += LANES) {
    const int left = (int)(e->width - at);
    vec x = load(sums + at - n);
    if (e->bias) x += load_part(e->bias + at, left);
    if (e->relu) x = where(~(x < 0.0f), x); /* keeps NaN */
    if (e->mask) x = where(widen_part(e->mask + place + at, left) > 0.0f, x);
    if (e->is_narrow) {
      narrow some[LANES] __attribute__((aligned(32)));
      narrow *out = (narrow *)e->c + place + at;
      if (left >= LANES) _mm256_storeu_si256((void *)out, rounded(x));
      else _mm256_store_si256((void *)some, rounded(x)), memcpy(out, some, 2 * (size_t)left);
    } else {
      float *out = (float *)e->c + place + at;
      if (e->add) x += load_part(out, left);
      store_part(out, x, left);
    }
  }
}

/* sums[r][v] += a[r * stride + j] * b[j * PANEL + v * LANES ...] over j: pairs, for constant rows and vecs. */
INLINE void add_pairs(const int rows, const int vecs, vec sums[][2], const pair *a, ptrdiff_t stride, int64_t length,
                      const pair *b) {
  for (int64_t j = 0; j < length; j++, b += PANEL) {
    __m512bh column[2];
    UNROLL for (int v = 0; v < vecs; v++) column[v] = (__m512bh)_mm512_loadu_si512(b + v * LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      const __m512bh factor = (__m512bh)_mm512_set1_epi32((int)a[r * stride + j]);
      UNROLL for (int v = 0; v < vecs; v++) sums[r][v] = (vec)_mm512_dpbf16_ps((__m512)sums[r][v], factor, column[v]);
    }
  }
}

#define PAIRS(R, V)                                                                                                  \
  {                                                                                                                  \
    vec sums[R][2];                                                                                                  \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) sums[r][v] = (vec){0};                     \
    for (int64_t s = 0; s < count; s++)                                                                              \
      add_pairs(R, V, sums, a + chains[s].a, stride, chains[s].length, b + chains[s].b * PANEL);                     \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) store(made[r] + v * LANES, sums[r][v]);    \
  }
#define PAIRS_ROWS(R, _) \
  if (vecs == 2) PAIRS(R, 2) else PAIRS(R, 1)

static void by_pairs(const pair *a, ptrdiff_t stride, int rows, int vecs, const Chain *chains, int64_t count,
                     const pair *b, float made[][PANEL]) {
  FOR_ROWS(rows, PAIRS_ROWS, 0)
}

#ifdef __AMX_BF16__

/* Tiles 0 to 3: sums, of [half of the rows][half of the columns]; 4 and 5: rows; 6 and 7: columns. */
typedef struct {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} __attribute__((aligned(64))) Tiles;

static void set_tiles(const int *rows, int pairs) {
  Tiles t = {.palette = 1};
  for (int half = 0; half < 2; half++) {
    const uint8_t count = (uint8_t)(rows[half] > 0 ? rows[half] : 1);
    for (int tile = 2 * half; tile < 2 * half + 2; tile++) t.rows[tile] = count, t.bytes[tile] = 4 * TILE;
    t.rows[4 + half] = count, t.bytes[4 + half] = (uint16_t)(4 * pairs);
    t.rows[6 + half] = (uint8_t)pairs, t.bytes[6 + half] = 4 * TILE;
  }
  _tile_loadconfig(&t);
}

#define BY_TILES(TWO_ROWS, TWO_COLUMNS)                                   \
  for (int64_t s = 0; s < count; s++) {                                   \
    const pair *a = rows->a + chains[s].a, *at = b + chains[s].b * PANEL; \
    for (int64_t j = 0; j < chains[s].length; j += pairs) {               \
      _tile_loadd(4, a + j, 4 * rows->a_stride);                          \
      _tile_loadd(6, at + j * PANEL, 4 * PANEL);                          \
      _tile_dpbf16ps(0, 4, 6);                                            \
      if (TWO_COLUMNS) {                                                  \
        _tile_loadd(7, at + j * PANEL + TILE, 4 * PANEL);                 \
        _tile_dpbf16ps(1, 4, 7);                                          \
      }                                                                   \
      if (TWO_ROWS) {                                                     \
        _tile_loadd(5, a + rows->a_half + j, 4 * rows->a_stride);         \
        _tile_dpbf16ps(2, 5, 6);                                          \
        if (TWO_COLUMNS) _tile_dpbf16ps(3, 5, 7);                         \
      }                                                                   \
    }                                                                     \
  }

static void by_tiles(const Rows *rows, int vecs, const Chain *chains, int64_t count, const pair *b, float made[][PANEL]) {
  int pairs = TILE;
  while (count && chains[0].length % pairs) pairs--;
  set_tiles(rows->rows, pairs);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (rows->rows[1] && vecs == 2) BY_TILES(1, 1)
  else if (rows->rows[1]) BY_TILES(1, 0)
  else if (vecs == 2) BY_TILES(0, 1)
  else BY_TILES(0, 0)
  _tile_stored(0, made[0], 4 * PANEL);
  _tile_stored(1, made[0] + TILE, 4 * PANEL);
  if (rows->rows[1]) {
    _tile_stored(2, made[TILE], 4 * PANEL);
    _tile_stored(3, made[TILE] + TILE, 4 * PANEL);
  }
  _tile_release();
}

#endif

/* Columns n .. n + PANEL - 1 of the rows' outputs. b: the panel of the right factor; all chains are equally long. */
static void narrow_product(const Rows *rows, const Chain *chains, int64_t count, const pair *b, int64_t n,
                           const Ending *ending) {
  const int vecs = ending->width - n > LANES ? 2 : 1;
  float made[BLOCK][PANEL] __attribute__((aligned(64)));
#ifdef __AMX_BF16__
  if (tiles_allowed) by_tiles(rows, vecs, chains, count, b, made);
  else
#endif
    for (int half = 0; half < 2; half++)
      for (int64_t t = 0, tiles = tiles_of(rows->rows[half], ROWS); t < tiles; t++) {
        const int64_t first = tile_begin(t, tiles, rows->rows[half]), end = tile_begin(t + 1, tiles, rows->rows[half]);
        by_pairs(rows->a + half * rows->a_half + first * rows->a_stride, rows->a_stride, (int)(end - first), vecs, chains,
                 count, b, made + half * TILE + first);
      }
  for (int half = 0; half < 2; half++)
    for (int r = 0; r < rows->rows[half]; r++)
      end_row(made[half * TILE + r], rows->place + half * rows->c_half + r * rows->c_stride, n, ending);
}

/* `count` rows at equal distances, up to BLOCK of them. */
INLINE Rows in_line(const pair *a, ptrdiff_t a_stride, ptrdiff_t place, ptrdiff_t c_stride, int64_t count) {
  const int first = (int)least(count, TILE);
  return (Rows){a, a_stride, TILE * a_stride, place, c_stride, TILE * c_stride, {first, (int)count - first}};
}

#endif
#endif
