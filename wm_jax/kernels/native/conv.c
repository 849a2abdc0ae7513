/* Stride-2 convolutions without padding, as maps between a large image and a small one, half its size (conv.py):
 *
 *   down    large -> small: small[i, j] = sum over a, b of large[2i+a, 2j+b] @ w[a, b]
 *   up      small -> large: large[2i+a, 2j+b] += small[i, j] @ w[a, b]; every large pixel gathers its products
 *   outer   (large, small) -> w: w[a, b] = sum over images, i, j of large[2i+a, 2j+b]^T small[i, j]
 *
 * Arrays are dense float32, images [batch, height, width, channels]. Nothing is unfolded into memory: a window is a few
 * spans of neighbouring numbers, which the tile (simd.h) reads where they lie. The rows of a tile are the pixels of a
 * line, or one pixel of many images where lines are short. */
#include "images.h"

enum { SHORT_LINE = 6, GROUP = 2 * ROWS, CHUNK_BYTES = 1 << 19 };

/* From the arguments behind the first `next` ones, as the attributes `bias`, `relu` and `mask` say. */
static Finish finish_of(const Frame *frame, int next) {
  const XLA_FFI_Buffer *c = result(frame, 0);
  Finish finish = {.c = c->data, .width = c->dims[3], .relu = attribute(frame, "relu")};
  if (attribute(frame, "bias")) finish.bias = argument(frame, next++)->data;
  if (attribute(frame, "mask")) finish.mask = argument(frame, next)->data;
  return finish;
}

/* ---- Large to small ---- */

typedef struct {
  Shape shape;
  const float *large, *b;
  int64_t columns, groups;
  int by_line;
  Finish finish;
} Down;

/* One line of small pixels, of one image or of a group of them. */
static void down_line(void *data, int64_t task) {
  const Down *p = data;
  const Shape *s = &p->shape;
  Span spans[MAX_SPANS];
  for (int64_t a = 0; a < s->k; a++)
    spans[a] = (Span){a * s->w * s->inner, a * s->k * s->inner * p->columns, s->k * s->inner};
  const int64_t group = task / s->oh, i = task % s->oh;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  const float *large = p->large + first * large_image(s) + 2 * i * s->w * s->inner;
  const ptrdiff_t place = first * small_image(s) + i * s->ow * s->outer;
  for (int64_t n = 0; n < s->outer; n += PANEL) {
    if (p->by_line) {
      const Run run = {large, 2 * s->inner, place, s->outer, s->ow};
      product(&run, spans, (int)s->k, p->b + n, p->columns, n, &p->finish);
      continue;
    }
    for (int64_t j = 0; j < s->ow; j++) {
      const Run run = {large + 2 * j * s->inner, large_image(s), place + j * s->outer, small_image(s), end - first};
      product(&run, spans, (int)s->k, p->b + n, p->columns, n, &p->finish);
    }
  }
}

/* (large, weights [k, k, inner, columns], bias or mask or nothing) -> small */
XLA_FFI_Error *wm_jax_down(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *large = argument(frame, 0), *b = argument(frame, 1), *small = result(frame, 0);
  Down p = {.large = large->data, .b = b->data, .columns = b->dims[3]};
  p.shape = shape_of(large, small, b->dims[0]);
  p.finish = finish_of(frame, 2);
  p.by_line = p.shape.ow >= SHORT_LINE;
  p.groups = p.by_line ? p.shape.batch : tiles_of(p.shape.batch, GROUP);
  parallel(frame, p.groups * p.shape.oh, down_line, &p);
  return NULL;
}

/* ---- Small to large ---- */

typedef struct {
  Shape shape;
  const float *small, *b;
  int64_t columns, groups;
  Finish finish;
} Up;

static void spans_of(const Shape *s, const Reach *found, int count, int64_t columns, Span *spans) {
  for (int i = 0; i < count; i++)
    spans[i] = (Span){found[i].pixel * s->outer, found[i].tap * s->outer * columns, s->outer};
}

/* One line of large pixels, of a group of images. */
static void up_line(void *data, int64_t task) {
  const Up *p = data;
  const Shape *s = &p->shape;
  Reach found[MAX_SPANS];
  Span spans[MAX_SPANS];
  const int64_t group = task / s->h, u = task % s->h;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  for (int64_t v = 0; v < s->w; v++) {
    const int count = reaching(s, u, v, found);
    spans_of(s, found, count, p->columns, spans);
    const Run run = {p->small + first * small_image(s), small_image(s),
                     first * large_image(s) + (u * s->w + v) * s->inner, large_image(s), end - first};
    for (int64_t n = 0; n < s->inner; n += PANEL) product(&run, spans, count, p->b + n, p->columns, n, &p->finish);
  }
}

/* Blocks of 2 x 2 large pixels at a time, where four pixels are no wider than BLOCK_COLUMNS: their windows reach the
 * same small pixels (k is even), so one product makes them all. weights [k/2, k/2, outer, 2 * 2 * inner (padded)]. */
static void up_block_line(void *data, int64_t task) {
  const Up *p = data;
  const Shape *s = &p->shape;
  const int64_t lines = (s->h + 1) / 2, group = task / lines, i = task % lines;
  const int64_t first = tile_begin(group, p->groups, s->batch), end = tile_begin(group + 1, p->groups, s->batch);
  Reach found[MAX_SPANS];
  Span spans[MAX_SPANS];
  float made[GROUP][BLOCK_COLUMNS];
  const Finish finish = {.c = made[0], .width = BLOCK_COLUMNS, .bias = p->finish.bias, .relu = p->finish.relu};
  for (int64_t j = 0; j < (s->w + 1) / 2; j++) {
    const int count = reaching_block(s, i, j, found);
    spans_of(s, found, count, p->columns, spans);
    const Run run = {p->small + first * small_image(s), small_image(s), 0, BLOCK_COLUMNS, end - first};
    for (int64_t n = 0; n < BLOCK_COLUMNS; n += PANEL) product(&run, spans, count, p->b + n, p->columns, n, &finish);
    put_blocks(s, i, j, first, end, made, p->finish.c);
  }
}

/* (small, weights, bias or mask or nothing) -> large; `blocks` says which of the two layouts the weights have. */
XLA_FFI_Error *wm_jax_up(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *small = argument(frame, 0), *b = argument(frame, 1), *large = result(frame, 0);
  const int64_t blocks = attribute(frame, "blocks");
  Up p = {.small = small->data, .b = b->data, .columns = b->dims[3]};
  p.shape = shape_of(large, small, b->dims[0] * (blocks ? 2 : 1));
  p.finish = finish_of(frame, 2);
  p.groups = tiles_of(p.shape.batch, GROUP);
  if (blocks)
    parallel(frame, p.groups * ((p.shape.h + 1) / 2), up_block_line, &p);
  else
    parallel(frame, p.groups * p.shape.h, up_line, &p);
  return NULL;
}

/* ---- Large and small to weights ---- */

typedef struct {
  Shape shape;
  const float *large, *small;
  float *out, *sum; /* [k, k, inner, outer]; [channels], the sum over the pixels of the small images, or of the large */
  int64_t sum_large;
  int64_t blocks, panels, images; /* blocks of rows in one span; panels of columns; images that stay in cache */
  int by_line;
} Outer;

static Nest pixels_of(const Outer *p, int64_t images) {
  const Shape *s = &p->shape;
  const ptrdiff_t line = 2 * s->w * s->inner, pixel = 2 * s->inner;
  if (p->by_line)
    return (Nest){{images, s->oh, s->ow}, {large_image(s), line, pixel}, {small_image(s), s->ow * s->outer, s->outer}};
  return (Nest){{s->oh, s->ow, images}, {line, pixel, large_image(s)}, {s->ow * s->outer, s->outer, small_image(s)}};
}

/* total[channel] (+)= the sum over pixels. The numbers are taken as they lie, a vector at a time; `period` is the least
 * number of them after which vectors meet the same channels again. */
static void add_pixels(const float *numbers, int64_t count, int64_t channels, float *total) {
  int64_t period = channels;
  while (period % LANES) period += channels;
  float *sums = allocate_zeros(period);
  int64_t i = 0, at = 0;
  for (; i + LANES <= count; i += LANES) {
    store(sums + at, load(sums + at) + load(numbers + i));
    at = at + LANES == period ? 0 : at + LANES;
  }
  for (; i < count; i++) sums[i % period] += numbers[i];
  for (i = 0; i < period; i++) total[i % channels] += sums[i];
  free(sums);
}

typedef struct {
  Outer outer;
  int64_t shares;
} Shares;

/* A share of the weights' tiles, over all images: a few images at a time, which stay in cache. */
static void outer_share(void *data, int64_t share) {
  const Outer *p = &((const Shares *)data)->outer;
  const Shape *s = &p->shape;
  const int64_t shares = ((const Shares *)data)->shares, tiles = s->k * p->blocks * p->panels;
  const int64_t run = s->k * s->inner; /* of neighbours in a window */
  for (int64_t image = 0; image < s->batch; image += p->images) {
    const Nest nest = pixels_of(p, least(p->images, s->batch - image));
    const float *small = p->small + image * small_image(s);
    for (int64_t tile = tile_begin(share, shares, tiles); tile < tile_begin(share + 1, shares, tiles); tile++) {
      const int64_t n = tile % p->panels * PANEL, block = tile / p->panels % p->blocks, a = tile / p->panels / p->blocks;
      const int64_t row = tile_begin(block, p->blocks, run), rows = tile_begin(block + 1, p->blocks, run) - row;
      const int left = (int)least(s->outer - n, PANEL);
      const float *large = p->large + image * large_image(s) + a * s->w * s->inner + row;
      float *out = p->out + (a * run + row) * s->outer + n;
      outer_tile(rows, &nest, large, small + n, out, s->outer, left, image == 0);
    }
    if (share == 0) {
      const int64_t images = least(p->images, s->batch - image);
      if (p->sum_large)
        add_pixels(p->large + image * large_image(s), images * large_image(s), s->inner, p->sum);
      else
        add_pixels(small, images * small_image(s), s->outer, p->sum);
    }
  }
}

/* (large, small) -> weights, and the sum of the pixels of either, as the attribute `sum_large` says */
XLA_FFI_Error *wm_jax_outer(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *large = argument(frame, 0), *small = argument(frame, 1), *out = result(frame, 0);
  Outer p = {.large = large->data, .small = small->data, .out = out->data, .sum = result(frame, 1)->data};
  p.shape = shape_of(large, small, out->dims[0]);
  p.by_line = p.shape.ow >= SHORT_LINE;
  p.blocks = tiles_of(p.shape.k * p.shape.inner, ROWS);
  p.panels = tiles_of(p.shape.outer, PANEL);
  p.images = 1 + CHUNK_BYTES / 4 / (large_image(&p.shape) + small_image(&p.shape));
  p.sum_large = attribute(frame, "sum_large");
  memset(p.sum, 0, result(frame, 1)->dims[0] * sizeof(float));
  Shares shares = {p, least(2 * thread_count(frame), p.shape.k * p.blocks * p.panels)};
  parallel(frame, shares.shares, outer_share, &shares);
  return NULL;
}
