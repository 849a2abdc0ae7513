/* The map of CarRacing's tracks (wm_jax/envs/car_racing/track.py): for every cell of a field the section that is nearest.
 *
 * One track is one task. Every section offers itself to the cells around it; the nearest wins, of equal ones the first. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "xla.h"

typedef struct {
  int64_t sections, cells, around;
  float field, cell, reach;
  const float *points;
  const int32_t *count;
  int16_t *out;
} Maps;

static void draw_map(void *data, int64_t track) {
  const Maps *p = data;
  const float *points = p->points + track * p->sections * 2;
  int16_t *out = p->out + track * p->cells * p->cells;
  const size_t size = (size_t)(p->cells * p->cells);
  int32_t *best = allocate(size * sizeof *best);
  for (size_t i = 0; i < size; i++) best[i] = INT32_MAX, out[i] = (int16_t)p->sections;
  const int64_t count = p->count[track] < p->sections ? p->count[track] : p->sections;
  for (int64_t section = 0; section < count; section++) {
    const float x = points[2 * section], y = points[2 * section + 1];
    const int64_t column = (int64_t)floorf((x + p->field) / p->cell), row = (int64_t)floorf((y + p->field) / p->cell);
    for (int64_t v = row - p->around; v <= row + p->around; v++) {
      if (v < 0 || v >= p->cells) continue;
      const float down = ((float)v + 0.5f) * p->cell - p->field - y;
      for (int64_t u = column - p->around; u <= column + p->around; u++) {
        if (u < 0 || u >= p->cells) continue;
        const float right = ((float)u + 0.5f) * p->cell - p->field - x;
        const float square = right * right + down * down;
        const int32_t distance = (int32_t)(square * 1024.0f);
        const int64_t place = v * p->cells + u;
        if (square < p->reach * p->reach && distance < best[place]) best[place] = distance, out[place] = (int16_t)section;
      }
    }
  }
  free(best);
}

/* (points [S, sections, 2], count [S], {field, cell, reach}) -> sections int16 [S, cells, cells] */
XLA_FFI_Error *wm_jax_nearest(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *points = argument(frame, 0), *out = result(frame, 0);
  const float *sizes = argument(frame, 2)->data;
  Maps maps = {
      .sections = points->dims[1], .cells = out->dims[1], .around = (int64_t)ceilf(sizes[2] / sizes[1]),
      .field = sizes[0], .cell = sizes[1], .reach = sizes[2],
      .points = points->data, .count = argument(frame, 1)->data, .out = out->data,
  };
  parallel(frame, points->dims[0], draw_map, &maps);
  return NULL;
}
