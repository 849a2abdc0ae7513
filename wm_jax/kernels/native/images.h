/* What convolutions of stride 2 know of their two kinds of images (conv.c, narrow.c). */
#ifndef WM_JAX_IMAGES_H
#define WM_JAX_IMAGES_H

#include "tiles.h"
#include "xla.h"

enum { MAX_SPANS = 64, BLOCK_COLUMNS = 16 };

/* Two kinds of images, and the kernel's side between them. */
typedef struct {
  int64_t batch, h, w, inner, oh, ow, outer, k; /* large: h, w, inner channels; small: oh, ow, outer */
} Shape;

static inline Shape shape_of(const XLA_FFI_Buffer *large, const XLA_FFI_Buffer *small, int64_t k) {
  return (Shape){large->dims[0], large->dims[1], large->dims[2], large->dims[3],
                 small->dims[1], small->dims[2], small->dims[3], k};
}

static inline ptrdiff_t large_image(const Shape *s) { return s->h * s->w * s->inner; }
static inline ptrdiff_t small_image(const Shape *s) { return s->oh * s->ow * s->outer; }

/* A small pixel and a tap of the kernel whose product reaches a large pixel; both counted in rows of their arrays. */
typedef struct {
  int64_t pixel, tap;
} Reach;

/* The products that reach one large pixel, given by the taps (a, b) = (2a' + p, 2b' + q) of its window: those whose
 * small pixel (i - a', j - b') exists. */
static inline int reaching(const Shape *s, int64_t u, int64_t v, Reach *found) {
  int count = 0;
  for (int64_t a = u % 2; a < s->k; a += 2)
    for (int64_t b = v % 2; b < s->k; b += 2) {
      const int64_t i = (u - a) / 2, j = (v - b) / 2;
      if (a <= u && b <= v && i < s->oh && j < s->ow) found[count++] = (Reach){i * s->ow + j, a * s->k + b};
    }
  return count;
}

/* The same for the block of 2 x 2 large pixels from (2i, 2j) on, where k is even: taps in a kernel of k/2 x k/2. */
static inline int reaching_block(const Shape *s, int64_t i, int64_t j, Reach *found) {
  const int64_t m = s->k / 2;
  int count = 0;
  for (int64_t a = 0; a < m; a++)
    for (int64_t b = 0; b < m; b++)
      if (a <= i && b <= j && i - a < s->oh && j - b < s->ow)
        found[count++] = (Reach){(i - a) * s->ow + j - b, a * m + b};
  return count;
}

/* What was made of the blocks at (2i, 2j) of images first .. end - 1, a row of 2 x 2 pixels for each, into the images. */
static inline void put_blocks(const Shape *s, int64_t i, int64_t j, int64_t first, int64_t end, float made[][BLOCK_COLUMNS],
                              float *large) {
  const size_t bytes = 4 * (size_t)least(2 * s->inner, (s->w - 2 * j) * s->inner);
  for (int64_t image = first; image < end; image++)
    for (int64_t row = 0; row < least(2, s->h - 2 * i); row++)
      memcpy(large + image * large_image(s) + ((2 * i + row) * s->w + 2 * j) * s->inner,
             made[image - first] + row * 2 * s->inner, bytes);
}

#endif
