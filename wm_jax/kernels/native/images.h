/* What convolutions of stride 2 know of their two kinds of images (conv.c, narrow.c). */
#ifndef WM_JAX_IMAGES_H
#define WM_JAX_IMAGES_H

#include "tiles.h"

enum { MAX_SPANS = 64 };

/* Two kinds of images, and the kernel's side between them. */
typedef struct {
  int64_t batch, h, w, inner, oh, ow, outer, k; /* large: h, w, inner channels; small: oh, ow, outer */
} Shape;

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

#endif
