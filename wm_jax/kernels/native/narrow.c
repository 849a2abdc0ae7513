/* The maps of conv.c with products in bfloat16 (narrow.h): images are bfloat16, weights float32 and rounded here, sums
 * float32. Results are bfloat16 or float32, as the caller wants them.
 *
 * Weights' gradients are products, too: of the images of a pixel, BLOCK at a time, which lie beside each other for it. */
#include "narrow.h"
#include "images.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
enum { ASK_FOR_STATE = 0x1023, TILE_DATA = 18 }; /* Linux: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
#endif

/* What there is for products in bfloat16: 0 nothing, 1 AVX512-BF16, 2 AMX. To be called before anything else here. */
int wm_jax_narrow(void) {
#ifndef NARROW
  return 0;
#else
#ifdef __AMX_BF16__
  tiles_allowed = syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
#endif
  return 1 + tiles_allowed;
#endif
}

#ifdef NARROW

enum { PAIRS_OF_BLOCK = BLOCK / 2, CHUNK_BYTES = 1 << 19 };

static int is_bfloat16(const XLA_FFI_Buffer *buffer) { return buffer->dtype == XLA_FFI_DataType_BF16; }

/* From the arguments behind the first two, as the attributes `bias`, `relu` and `mask` say. */
static Ending ending_of(const Frame *frame) {
  const XLA_FFI_Buffer *c = result(frame, 0);
  Ending ending = {.c = c->data, .is_narrow = is_bfloat16(c), .width = c->dims[3], .relu = attribute(frame, "relu")};
  int next = 2;
  if (attribute(frame, "bias")) ending.bias = argument(frame, next++)->data;
  if (attribute(frame, "mask")) ending.mask = argument(frame, next)->data;
  return ending;
}

/* Weights [k, k, rows, columns], packed; if they are `transposed`, [k, k, columns, rows]. The caller frees them. */
static pair *packed(const Frame *frame, const XLA_FFI_Buffer *w, int transposed) {
  Packing p = {.matrices = w->data, .count = w->dims[0] * w->dims[1]};
  p.rows = w->dims[2 + transposed], p.columns = w->dims[3 - transposed];
  p.out = allocate((size_t)(p.count * p.rows / 2 * tiles_of(p.columns, PANEL) * PANEL) * sizeof(pair));
  if (transposed)
    parallel(frame, p.count * tiles_of(p.rows, 2 * LANES), pack_transposed, &p);
  else
    parallel(frame, p.count * p.rows / 2, pack_rows, &p);
  return p.out;
}

typedef struct {
  Shape shape;
  const pair *a, *b;   /* images; weights, packed */
  int64_t rows, groups; /* pairs of rows in a panel of b; groups of images */
  int by_line;
  Ending ending;
} Map;

/* ---- Large to small ---- */

/* Small pixels of one image: two lines of up to TILE, or one that is longer. Or a line of them, of a group of images. */
static void down_line(void *data, int64_t task) {
  const Map *p = data;
  const Shape *s = &p->shape;
  Chain chains[MAX_SPANS];
  for (int64_t a = 0; a < s->k; a++)
    chains[a] = (Chain){a * s->w * s->inner / 2, a * s->k * s->inner / 2, s->k * s->inner / 2};
  const int64_t lines = p->by_line && s->ow <= TILE ? 2 : 1, tasks = tiles_of(s->oh, lines);
  const int64_t group = task / tasks, i = task % tasks * lines;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  const pair *a = p->a + (first * large_image(s) + 2 * i * s->w * s->inner) / 2;
  const ptrdiff_t place = first * small_image(s) + i * s->ow * s->outer;
  for (int64_t n = 0; n < s->outer; n += PANEL) {
    const pair *b = p->b + n * p->rows;
    if (lines == 2) {
      const int count = (int)s->ow;
      const Rows rows = {a, s->inner, s->w * s->inner, place, s->outer, s->ow * s->outer, {count, i + 1 < s->oh ? count : 0}};
      narrow_product(&rows, chains, s->k, b, n, &p->ending);
    } else if (p->by_line) {
      for (int64_t j = 0; j < s->ow; j += BLOCK) {
        const Rows rows = in_line(a + j * s->inner, s->inner, place + j * s->outer, s->outer, least(BLOCK, s->ow - j));
        narrow_product(&rows, chains, s->k, b, n, &p->ending);
      }
    } else {
      for (int64_t j = 0; j < s->ow; j++) {
        const Rows rows = in_line(a + j * s->inner, large_image(s) / 2, place + j * s->outer, small_image(s), end - first);
        narrow_product(&rows, chains, s->k, b, n, &p->ending);
      }
    }
  }
}

/* (large, weights [k, k, inner, outer], bias or mask or nothing) -> small */
XLA_FFI_Error *wm_jax_narrow_down(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *large = argument(frame, 0), *w = argument(frame, 1), *small = result(frame, 0);
  pair *b = packed(frame, w, 0);
  Map p = {.a = large->data, .b = b, .ending = ending_of(frame)};
  p.shape = shape_of(large, small, w->dims[0]);
  p.rows = p.shape.k * p.shape.k * p.shape.inner / 2;
  p.by_line = p.shape.ow >= least(p.shape.batch, TILE);
  p.groups = p.by_line ? p.shape.batch : tiles_of(p.shape.batch, BLOCK);
  parallel(frame, p.groups * tiles_of(p.shape.oh, p.by_line && p.shape.ow <= TILE ? 2 : 1), down_line, &p);
  free(b);
  return NULL;
}

/* ---- Small to large ---- */

static int chains_of(const Shape *s, const Reach *found, int count, Chain *chains) {
  for (int i = 0; i < count; i++)
    chains[i] = (Chain){found[i].pixel * s->outer / 2, found[i].tap * s->outer / 2, s->outer / 2};
  return count;
}

/* One line of large pixels, of a group of images. */
static void up_line(void *data, int64_t task) {
  const Map *p = data;
  const Shape *s = &p->shape;
  Reach found[MAX_SPANS];
  Chain chains[MAX_SPANS];
  const int64_t group = task / s->h, u = task % s->h;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  for (int64_t n = 0; n < s->inner; n += PANEL)
    for (int64_t v = 0; v < s->w; v++) {
      const int count = chains_of(s, found, reaching(s, u, v, found), chains);
      const Rows rows = in_line(p->a + first * small_image(s) / 2, small_image(s) / 2,
                                first * large_image(s) + (u * s->w + v) * s->inner, large_image(s), end - first);
      narrow_product(&rows, chains, count, p->b + n * p->rows, n, &p->ending);
    }
}

/* Blocks of 2 x 2 large pixels at a time, as in conv.c. weights [k/2, k/2, outer, 2 * 2 * inner]. */
static void up_block_line(void *data, int64_t task) {
  const Map *p = data;
  const Shape *s = &p->shape;
  Reach found[MAX_SPANS];
  Chain chains[MAX_SPANS];
  const int64_t lines = (s->h + 1) / 2, group = task / lines, i = task % lines;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  float made[BLOCK][BLOCK_COLUMNS];
  const Ending ending = {.c = made[0], .width = 4 * s->inner, .bias = p->ending.bias, .relu = p->ending.relu};
  for (int64_t j = 0; j < (s->w + 1) / 2; j++) {
    const int count = chains_of(s, found, reaching_block(s, i, j, found), chains);
    const Rows rows = in_line(p->a + first * small_image(s) / 2, small_image(s) / 2, 0, BLOCK_COLUMNS, end - first);
    narrow_product(&rows, chains, count, p->b, 0, &ending);
    put_blocks(s, i, j, first, end, made, p->ending.c);
  }
}

/* (small, weights [k, k, inner, outer], bias or mask or nothing) -> large; or with weights in `blocks` as in conv.c, for
 * float32 results. */
XLA_FFI_Error *wm_jax_narrow_up(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *small = argument(frame, 0), *w = argument(frame, 1), *large = result(frame, 0);
  const int64_t blocks = attribute(frame, "blocks");
  pair *b = packed(frame, w, !blocks);
  Map p = {.a = small->data, .b = b, .ending = ending_of(frame)};
  p.shape = shape_of(large, small, w->dims[0] * (blocks ? 2 : 1));
  p.rows = w->dims[0] * w->dims[1] * p.shape.outer / 2;
  p.groups = tiles_of(p.shape.batch, BLOCK);
  if (blocks)
    parallel(frame, p.groups * ((p.shape.h + 1) / 2), up_block_line, &p);
  else
    parallel(frame, p.groups * p.shape.h, up_line, &p);
  free(b);
  return NULL;
}

/* ---- Large and small to weights ---- */

typedef struct {
  Shape shape;
  const narrow *large, *small;
  pair *across; /* large, [block][number of an image][PAIRS_OF_BLOCK]: the images of a block beside each other */
  pair *along;  /* small, packed: [panel][block][pixel][PAIRS_OF_BLOCK][PANEL] */
  int64_t blocks, tiles, panels, lines, shares; /* of rows in a line of a window; of columns; of small pixels in a chunk */
  float *out, *sum;
  int64_t sum_large;
} Outer;

/* Numbers at .. at + LANES - 1 of two images that follow one another, as pairs; 0 for images that are not there. */
INLINE __m512i of_two(const narrow *images, ptrdiff_t size, int64_t image, int64_t batch, int64_t at, int left) {
  const vec nothing = {0};
  const vec first = image < batch ? widen_part(images + image * size + at, left) : nothing;
  const vec second = image + 1 < batch ? widen_part(images + (image + 1) * size + at, left) : nothing;
  return _mm512_or_si512(_mm512_srli_epi32((__m512i)first, 16), (__m512i)second);
}

/* One line of the large images of a block. */
static void lay_across(void *data, int64_t task) {
  const Outer *p = data;
  const Shape *s = &p->shape;
  const int64_t block = task / s->h, line = s->w * s->inner, begin = task % s->h * line;
  for (int64_t x = begin; x < begin + line; x += LANES) {
    const int left = (int)least(LANES, begin + line - x);
    __m512i rows[PAIRS_OF_BLOCK];
    for (int i = 0; i < PAIRS_OF_BLOCK; i++)
      rows[i] = of_two(p->large, large_image(s), block * BLOCK + 2 * i, s->batch, x, left);
    transpose(rows);
    for (int i = 0; i < left; i++)
      _mm512_store_si512(p->across + (block * large_image(s) + x + i) * PAIRS_OF_BLOCK, rows[i]);
  }
}

/* One small pixel of a block of images. */
static void lay_along(void *data, int64_t task) {
  const Outer *p = data;
  const Shape *s = &p->shape;
  const int64_t pixels = s->oh * s->ow, block = task / pixels, pixel = task % pixels;
  for (int64_t n = 0; n < p->panels * PANEL; n += LANES) {
    const int left = (int)least(LANES, s->outer - n);
    pair *out = p->along + ((n / PANEL * p->blocks + block) * pixels + pixel) * PAIRS_OF_BLOCK * PANEL + n % PANEL;
    for (int i = 0; i < PAIRS_OF_BLOCK; i++)
      _mm512_store_si512(out + i * PANEL,
                         of_two(p->small, small_image(s), block * BLOCK + 2 * i, s->batch, pixel * s->outer + n, left));
  }
}

/* total[channel] = the sum over pixels. */
static void add_pixels(const narrow *numbers, int64_t count, int64_t channels, float *total) {
  int64_t period = channels;
  while (period % LANES) period += channels;
  float *sums = allocate_zeros(period);
  for (int64_t i = 0, at = 0; i < count; i += LANES, at = at + LANES == period ? 0 : at + LANES)
    store(sums + at, load(sums + at) + widen_part(numbers + i, (int)least(LANES, count - i)));
  memset(total, 0, (size_t)channels * sizeof(float));
  for (int64_t i = 0; i < period; i++) total[i % channels] += sums[i];
  free(sums);
}

/* A share of the weights' tiles, over all images: some lines of the images of a block at a time, which stay in cache. */
static void outer_share(void *data, int64_t share) {
  const Outer *p = data;
  const Shape *s = &p->shape;
  const int64_t count = s->k * p->tiles * p->panels, run = s->k * s->inner, pixels = s->oh * s->ow;
  if (share == 0) {
    if (p->sum_large) add_pixels(p->large, s->batch * large_image(s), s->inner, p->sum);
    else add_pixels(p->small, s->batch * small_image(s), s->outer, p->sum);
  }
  Chain *chains = allocate((size_t)(p->lines * s->ow) * sizeof *chains);
  for (int64_t block = 0; block < p->blocks; block++)
    for (int64_t line = 0; line < s->oh; line += p->lines) {
      int64_t length = 0;
      for (int64_t i = line; i < least(line + p->lines, s->oh); i++)
        for (int64_t j = 0; j < s->ow; j++)
          chains[length++] = (Chain){(block * large_image(s) + 2 * (i * s->w + j) * s->inner) * PAIRS_OF_BLOCK,
                                     (block * pixels + i * s->ow + j) * PAIRS_OF_BLOCK, PAIRS_OF_BLOCK};
      const Ending ending = {.c = p->out, .width = s->outer, .add = block > 0 || line > 0};
      for (int64_t tile = tile_begin(share, p->shares, count); tile < tile_begin(share + 1, p->shares, count); tile++) {
        const int64_t panel = tile % p->panels, at = tile / p->panels % p->tiles, a = tile / p->panels / p->tiles;
        const int64_t row = tile_begin(at, p->tiles, run), end = tile_begin(at + 1, p->tiles, run);
        const Rows rows = in_line(p->across + (a * s->w * s->inner + row) * PAIRS_OF_BLOCK, PAIRS_OF_BLOCK,
                                  (a * run + row) * s->outer, s->outer, end - row);
        narrow_product(&rows, chains, length, p->along + panel * p->blocks * pixels * PAIRS_OF_BLOCK * PANEL, panel * PANEL,
                       &ending);
      }
    }
  free(chains);
}

/* (large, small) -> weights, and the sum of the pixels of either, as the attribute `sum_large` says */
XLA_FFI_Error *wm_jax_narrow_outer(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *large = argument(frame, 0), *small = argument(frame, 1), *out = result(frame, 0);
  Outer p = {.large = large->data, .small = small->data, .out = out->data, .sum = result(frame, 1)->data};
  p.shape = shape_of(large, small, out->dims[0]);
  const Shape *s = &p.shape;
  p.sum_large = attribute(frame, "sum_large");
  p.blocks = tiles_of(s->batch, BLOCK), p.tiles = tiles_of(s->k * s->inner, BLOCK), p.panels = tiles_of(s->outer, PANEL);
  p.lines = least(s->oh, 1 + CHUNK_BYTES / (2 * BLOCK * (2 * s->w * s->inner + s->ow * s->outer)));
  p.across = allocate((size_t)(p.blocks * large_image(s) * PAIRS_OF_BLOCK) * sizeof(pair));
  p.along = allocate((size_t)(p.panels * p.blocks * s->oh * s->ow * PAIRS_OF_BLOCK * PANEL) * sizeof(pair));
  parallel(frame, p.blocks * s->h, lay_across, &p);
  parallel(frame, p.blocks * s->oh * s->ow, lay_along, &p);
  p.shares = least(2 * thread_count(frame), s->k * p.tiles * p.panels);
  parallel(frame, p.shares, outer_share, &p);
  free(p.across), free(p.along);
  return NULL;
}

#endif
