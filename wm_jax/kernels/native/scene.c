/* Pictures of CarRacing (wm_jax/envs/car_racing/drawing.py, which says what is drawn, and why so).
 *
 * One picture is one task: ground and road from nothing but arithmetic, a vector of pixels at a time, then the car, then
 * bytes. What a section of the road looks like from here is worked out when the first pixel asks for it: of some 300
 * sections a picture sees 30. */
#include "simd.h"
#include "xla.h"

enum { SECTIONS = 400, COLUMNS = 16, SIDE = 96, SAMPLES = 48, CORNERS = 8, MASKS = 3, CHANNELS = 3 };

/* The columns of `Tracks.strips`. */
enum { AHEAD, RIGHT = 3, HALF = 6, NEXT_RIGHT = 7, NEXT_HALF = 10, CURB, NEXT_CURB, SHADE, NEXT_SHADE, NEXT };
/* A row of what is seen has these in the camera's frame and divided by the footprint, and in the place of NEXT: */
enum { KERB_WIDTH = NEXT };

/* In the order of `drawing._natively`, and of `drawing.Shot.numbers`. */
typedef struct {
  float field, cell, patch, outline, curb, lost, middle_x, middle_y, width, height, sample;
  float distant, close, samples, coarse_below, map_cells[2], map_sides[2], half_width, drawn_at, shades[3], taps[2];
} Constants;
typedef struct {
  float x, y, cos, sin, zoom, wheel_cos[4], wheel_sin[4], low[4], high[4];
} Shot;

typedef struct {
  int64_t tracks, cells, texels, h, w;
  const int32_t *track;
  const uint8_t *visited;
  const Shot *shots;
  const int16_t *nearest;
  const float *strips, *colours, *columns, *rows;
  const uint16_t *distant;
  const Constants *constants;
  /* The car: places of its samples, their weights in its part of the picture, edges of the hull, wheels. */
  const float *sample_columns, *sample_rows, *column_weights, *row_weights, *hull, *wheels;
  int64_t samples_x, samples_y, part_x, part_y, part_w, part_h, polygons;
  uint8_t *out;
} Scene;

typedef struct {
  const Scene *scene;
  const Shot *shot;
  const float *strips, *colours;
  const uint16_t *distant;
  const int16_t *nearest;
  const uint8_t *visited;
  float footprint_x, footprint_y, outline; /* in u */
  uint8_t made[SECTIONS + 1];
  float seen[SECTIONS + 1][COLUMNS] __attribute__((aligned(64)));
  float picture[CHANNELS][SIDE * SIDE] __attribute__((aligned(64)));
} Work;

INLINE vec constant(float x) { return (vec){0} + x; }
/* NaN becomes the bound: what it is an index to must exist. */
INLINE vec at_least(vec x, float low) { return choose(x > low, x, constant(low)); }
INLINE vec at_most(vec x, float high) { return choose(x > high, constant(high), x); }
INLINE vec least(vec a, vec b) { return choose(a < b, a, b); }
INLINE vec most(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec magnitude(vec x) { return (vec)((ivec)x & 0x7fffffff); }
/* The share of a box on the inner side of a line, from the distance of its middle in widths of the box. */
INLINE vec ramp(vec distance) { return at_most(at_least(distance + 0.5f, 0.0f), 1.0f); }
INLINE vec whole(vec x) { return __builtin_convertvector(__builtin_convertvector(x, ivec), vec); } /* x >= 0 */

/* ---- The ground ---- */

/* The width of a footprint along a unit vector of the camera's frame. */
static float extent(const Work *w, float right, float ahead) {
  const float x = right * w->footprint_x, y = ahead * w->footprint_y;
  return __builtin_sqrtf(x * x + y * y);
}

/* A line of the world, {x, y, c}, as a line of the camera's frame, times `scale`. */
static void turn_line(const Shot *shot, const float *line, float scale, float *out) {
  out[0] = (shot->cos * line[0] + shot->sin * line[1]) * scale;
  out[1] = (shot->cos * line[1] - shot->sin * line[0]) * scale;
  out[2] = (line[0] * shot->x + line[1] * shot->y + line[2]) * scale;
}

static void look_at(Work *w, int section) {
  const float *strip = w->strips + section * COLUMNS;
  float *seen = w->seen[section];
  turn_line(w->shot, strip + AHEAD, 1.0f, seen + AHEAD);
  turn_line(w->shot, strip + RIGHT, 1.0f, seen + RIGHT);
  const float along = 1.0f / extent(w, seen[AHEAD], seen[AHEAD + 1]);
  const float across = 1.0f / extent(w, seen[RIGHT], seen[RIGHT + 1]);
  for (int i = 0; i < 3; i++) seen[AHEAD + i] *= along, seen[RIGHT + i] *= across;
  turn_line(w->shot, strip + NEXT_RIGHT, across, seen + NEXT_RIGHT);
  seen[HALF] = (strip[HALF] + w->outline) * across;
  seen[NEXT_HALF] = (strip[NEXT_HALF] + w->outline) * across;
  seen[CURB] = strip[CURB], seen[NEXT_CURB] = strip[NEXT_CURB];
  const float fraction = w->colours[0] - __builtin_floorf(w->colours[0]);
  seen[SHADE] = w->visited[section] ? 0.0f : __builtin_floorf(strip[SHADE] + fraction);
  seen[NEXT_SHADE] = w->visited[(int)strip[NEXT]] ? 0.0f : __builtin_floorf(strip[NEXT_SHADE] + fraction);
  seen[KERB_WIDTH] = w->scene->constants->curb * across;
  w->made[section] = 1;
}

/* Shares of footprints that are paved, red and white, and the paved share times its brightness over the plain road. */
typedef struct {
  vec paved, red, white, shade;
} Shares;

/* One tile's: where its middle line, half width, curb and brightness are in a row. */
INLINE void add_tile(Shares *s, const vec *row, int line, int curb_at, int shade_at, vec x, vec y, vec share) {
  const vec right = row[line] * x + row[line + 1] * y + row[line + 2], half = row[line + 3], curb = row[curb_at];
  const vec paved = share * ramp(half - magnitude(right));
  const vec inside = half - choose(curb < 0.0f, -right, right);
  const vec kerb = where(curb != 0.0f, share * (ramp(inside + row[KERB_WIDTH]) - ramp(inside)));
  const vec white = where(magnitude(curb) == 1.0f, kerb);
  s->paved += paved, s->white += white, s->red += kerb - white;
  s->shade += paved * row[shade_at];
}

/* The road under a vector of pixels whose sections are given; x, y in the camera's frame. */
INLINE Shares road(const Work *w, const int *sections, vec x, vec y) {
  vec row[COLUMNS];
  for (int lane = 0; lane < LANES; lane++) {
    const float *seen = w->seen[sections[lane]];
    for (int c = 0; c < COLUMNS; c++) row[c][lane] = seen[c];
  }
  const vec ahead = ramp(row[AHEAD] * x + row[AHEAD + 1] * y + row[AHEAD + 2]);
  Shares s = {0};
  add_tile(&s, row, RIGHT, CURB, SHADE, x, y, 1.0f - ahead);
  add_tile(&s, row, NEXT_RIGHT, NEXT_CURB, NEXT_SHADE, x, y, ahead);
  return s;
}

/* Along one axis: the share that lies on the stripes of darker grass. */
INLINE vec even(vec along, float patch, float outline, float width) {
  const vec turns = (along + patch / 2) / (2 * patch) + 64.0f;
  const vec middle = (turns - whole(turns)) * (2 * patch) - patch;
  return ramp((patch / 2 + outline - magnitude(middle)) / width);
}

/* The colours of a vector of samples at places of the world, added to pixels. width: of their footprints along the axes of
 * the world; share: of a pixel that a sample is. */
INLINE void add_colours(Work *w, Shares s, vec world_x, vec world_y, float width_x, float width_y, float share, int64_t at) {
  const Constants *k = w->scene->constants;
  const vec on_field = ramp((k->field - magnitude(world_x)) / width_x) * ramp((k->field - magnitude(world_y)) / width_y);
  const vec on_patch = even(world_x, k->patch, w->outline, width_x) * even(world_y, k->patch, w->outline, width_y);
  const vec bare = on_field * (1.0f - s.paved - s.red - s.white);
  for (int channel = 0; channel < CHANNELS; channel++) {
    const float plain = w->colours[channel], ground = w->colours[CHANNELS + channel];
    const float grass = w->colours[2 * CHANNELS + channel] - ground;
    vec colour = bare * (ground + grass * on_patch) + __builtin_floorf(plain) * s.paved + s.shade + 255.0f * s.white;
    if (channel == 0) colour += 255.0f * s.red;
    store(w->picture[channel] + at, load(w->picture[channel] + at) + share * colour);
  }
}

/* One sample of every pixel, added to the picture. dx, dy: where in the pixel, in window pixels; share: of it. */
static void add_sample(Work *w, float dx, float dy, float share) {
  const Scene *p = w->scene;
  const Constants *k = p->constants;
  const Shot *shot = w->shot;
  const float width_x = extent(w, shot->cos, -shot->sin), width_y = extent(w, shot->sin, shot->cos);
  for (int64_t row = 0; row < p->h; row++) {
    const vec y = constant((k->middle_y - p->rows[row] - dy) / shot->zoom);
    for (int64_t column = 0; column < p->w; column += LANES) {
      const vec x = (load(p->columns + column) - k->middle_x + dx) / shot->zoom;
      const vec world_x = shot->x + shot->cos * x - shot->sin * y, world_y = shot->y + shot->sin * x + shot->cos * y;
      const float last = (float)(p->cells - 1);
      const ivec cell_x = __builtin_convertvector(at_most(at_least((world_x + k->field) / k->cell, 0), last), ivec);
      const ivec cell_y = __builtin_convertvector(at_most(at_least((world_y + k->field) / k->cell, 0), last), ivec);
      int sections[LANES], any = 0;
      for (int lane = 0; lane < LANES; lane++) {
        const int section = w->nearest[cell_y[lane] * p->cells + cell_x[lane]];
        sections[lane] = section;
        any |= section != SECTIONS;
        if (!w->made[section]) look_at(w, section);
      }
      const Shares s = any ? road(w, sections, x, y) : (Shares){0};
      add_colours(w, s, world_x, world_y, width_x, width_y, share, row * p->w + column);
    }
  }
}

static void add_samples(Work *w) {
  const Constants *k = w->scene->constants;
  const float zoom = w->shot->zoom;
  const int side = zoom < k->close ? (int)k->samples : 1;
  const float share = 1.0f / (float)side, width = k->width * share, height = k->height * share;
  w->footprint_x = width / zoom, w->footprint_y = height / zoom;
  for (int sample = 0; sample < side * side; sample++)
    add_sample(w, ((float)(sample % side) + 0.5f) * width - k->width / 2,
               ((float)(sample / side) + 0.5f) * height - k->height / 2, share * share);
}

/* ---- The ground from far away: wm_jax/envs/car_racing/distant.py ---- */

enum { MAX_TAPS = 4, TEXELS = 4 };

/* One of the maps: `side` x `side` texels, whose middles lie `cell` apart. */
typedef struct {
  const uint16_t *texels;
  int32_t side;
  float cell, origin;
} Map;

/* What is paved, and what curb, around places of the world, added up, in 0..255. */
INLINE void look_from_afar(const Map *map, vec world_x, vec world_y, vec *paved, vec *curbs) {
  const float last = (float)map->side - 1.001f;
  const vec u = at_most(at_least((world_x + map->origin) / map->cell - 0.5f, 0), last);
  const vec v = at_most(at_least((world_y + map->origin) / map->cell - 0.5f, 0), last);
  const vec right = u - whole(u), down = v - whole(v);
  const ivec here = __builtin_convertvector(v, ivec) * map->side + __builtin_convertvector(u, ivec);
  const int steps[TEXELS] = {0, 1, map->side, map->side + 1};
  const vec weights[TEXELS] = {(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down};
  for (int i = 0; i < TEXELS; i++) {
    ivec texel;
    for (int lane = 0; lane < LANES; lane++) texel[lane] = map->texels[here[lane] + steps[i]];
    *paved += weights[i] * __builtin_convertvector(texel & 255, vec);
    *curbs += weights[i] * __builtin_convertvector(texel >> 8, vec);
  }
}

/* Where along a side of a pixel, of this length in window pixels, its taps lie, from its middle; cell: in u. */
static void place_taps(float length, float cell, float zoom, int count, float *taps) {
  const float left = (length * length / 12 - cell * cell * zoom * zoom / 4) * 12 / (float)(count * count - 1);
  const float apart = left > 0 ? __builtin_sqrtf(left) : 0.0f;
  for (int i = 0; i < count; i++) taps[i] = ((float)i - (float)(count - 1) / 2) * apart;
}

static void add_from_afar(Work *w) {
  const Scene *p = w->scene;
  const Constants *k = p->constants;
  const Shot *shot = w->shot;
  const int which = shot->zoom < k->coarse_below;
  const int64_t fine = (int64_t)k->map_sides[0];
  const Map map = {w->distant + which * fine * fine, (int32_t)k->map_sides[which], k->map_cells[which],
                   k->map_sides[0] * k->map_cells[0] / 2};
  const int across = (int)k->taps[0], count = across * (int)k->taps[1];
  float right[MAX_TAPS], down[MAX_TAPS];
  place_taps(k->width, map.cell, shot->zoom, across, right);
  place_taps(k->height, map.cell, shot->zoom, (int)k->taps[1], down);
  const float wider = (k->half_width + w->outline) / (k->half_width + k->outline / k->drawn_at);
  const float fraction = w->colours[0] - __builtin_floorf(w->colours[0]);
  float shade = 0.0f;
  for (int i = 0; i < 3; i++) shade += __builtin_floorf(k->shades[i] + fraction) / 3;
  w->footprint_x = k->width / shot->zoom, w->footprint_y = k->height / shot->zoom;
  const float width_x = extent(w, shot->cos, -shot->sin), width_y = extent(w, shot->sin, shot->cos);
  for (int64_t row = 0; row < p->h; row++)
    for (int64_t column = 0; column < p->w; column += LANES) {
      const vec x = (load(p->columns + column) - k->middle_x) / shot->zoom;
      const vec y = constant((k->middle_y - p->rows[row]) / shot->zoom);
      const vec world_x = shot->x + shot->cos * x - shot->sin * y, world_y = shot->y + shot->sin * x + shot->cos * y;
      vec paved = {0}, curbs = {0};
      for (int tap = 0; tap < count; tap++) {
        const float dx = right[tap % across] / shot->zoom, dy = -down[tap / across] / shot->zoom;
        look_from_afar(&map, world_x + (shot->cos * dx - shot->sin * dy), world_y + (shot->sin * dx + shot->cos * dy),
                       &paved, &curbs);
      }
      curbs *= 1.0f / (255 * (float)count), paved *= wider / (255 * (float)count);
      paved = least(paved, 1.0f - curbs);
      const Shares s = {paved, 0.5f * curbs, 0.5f * curbs, paved * shade};
      add_colours(w, s, world_x, world_y, width_x, width_y, 1.0f, row * p->w + column);
    }
}

/* ---- The car ---- */

/* Shares of a vector of samples: anything of the car, its hull, its stripes that are seen. */
INLINE void car_masks(const Work *w, vec x, vec y, vec *masks) {
  const Scene *p = w->scene;
  const Shot *shot = w->shot;
  const float sample = shot->zoom / p->constants->sample;
  vec tyres = constant(-1e6f), stripes = tyres, hull = tyres; /* distances to the inside */
  for (int i = 0; i < 4; i++) {
    const vec dx = x - p->wheels[2 * i], dy = y - p->wheels[2 * i + 1];
    const vec right = shot->wheel_cos[i] * dx + shot->wheel_sin[i] * dy;
    const vec ahead = shot->wheel_cos[i] * dy - shot->wheel_sin[i] * dx;
    const vec beside = p->wheels[8] - magnitude(right);
    tyres = most(tyres, least(beside, p->wheels[9] - magnitude(ahead)));
    stripes = most(stripes, least(beside, least(ahead - shot->low[i], shot->high[i] - ahead)));
  }
  for (int64_t polygon = 0; polygon < p->polygons; polygon++) {
    vec inside = constant(1e6f);
    for (int edge = 0; edge < CORNERS; edge++) {
      const float *line = p->hull + (polygon * CORNERS + edge) * 3;
      inside = least(inside, line[0] * x + line[1] * y + line[2]);
    }
    hull = most(hull, inside);
  }
  hull = ramp((hull + w->outline) * sample);
  masks[0] = most(hull, ramp((tyres + w->outline) * sample));
  masks[1] = hull;
  masks[2] = least(ramp((stripes + w->outline) * sample), 1.0f - hull);
}

INLINE float dot(const float *a, const float *b, int64_t count) {
  vec products = {0};
  for (int64_t i = 0; i < count; i += LANES) products += load(a + i) * load(b + i);
  float sum = 0.0f;
  for (int lane = 0; lane < LANES; lane++) sum += products[lane];
  return sum;
}

static void add_car(Work *w) {
  const Scene *p = w->scene;
  float sums[SIDE][MASKS][SAMPLES] = {0}; /* over the rows of samples, for each row of pixels */
  for (int64_t sy = 0; sy < p->samples_y; sy++) {
    const vec y = constant((p->constants->middle_y - p->sample_rows[sy]) / w->shot->zoom);
    for (int64_t sx = 0; sx < p->samples_x; sx += LANES) {
      vec masks[MASKS];
      car_masks(w, (load(p->sample_columns + sx) - p->constants->middle_x) / w->shot->zoom, y, masks);
      for (int64_t row = 0; row < p->part_h; row++) {
        const float weight = p->row_weights[row * p->samples_y + sy];
        if (weight == 0.0f) continue;
        for (int m = 0; m < MASKS; m++) store(&sums[row][m][sx], load(&sums[row][m][sx]) + weight * masks[m]);
      }
    }
  }
  for (int64_t row = 0; row < p->part_h; row++)
    for (int64_t column = 0; column < p->part_w; column++) {
      float mean[MASKS];
      for (int m = 0; m < MASKS; m++)
        mean[m] = dot(p->column_weights + column * p->samples_x, sums[row][m], p->samples_x);
      const float colour[CHANNELS] = {204.0f * mean[1] + 77.0f * mean[2], 77.0f * mean[2], 77.0f * mean[2]};
      for (int channel = 0; channel < CHANNELS; channel++) {
        float *pixel = w->picture[channel] + (p->part_y + row) * p->w + p->part_x + column;
        *pixel = *pixel * (1.0f - mean[0]) + colour[channel];
      }
    }
}

/* ---- The picture ---- */

/* Into bytes, red, green and blue in turns. */
static void pack(const Work *w, uint8_t *out) {
  const int64_t pixels = w->scene->h * w->scene->w;
  uint8_t last[3 * LANES + 1];
  for (int64_t i = 0; i < pixels; i += LANES) {
    ivec packed = {0};
    for (int channel = 0; channel < CHANNELS; channel++) {
      const vec level = at_least(load(w->picture[channel] + i) - w->scene->constants->lost, 0.0f);
      packed |= __builtin_convertvector(level + 0.5f, ivec) << (8 * channel);
    }
    /* A pixel is written as four bytes, of which the next one covers the last; behind the picture nothing may be. */
    uint8_t *bytes = i + LANES < pixels ? out + 3 * i : last;
    for (int lane = 0; lane < LANES; lane++) memcpy(bytes + 3 * lane, &(int32_t){packed[lane]}, 4);
  }
  memcpy(out + 3 * (pixels - LANES), last, 3 * LANES);
}

static void shoot(void *data, int64_t i) {
  const Scene *p = data;
  Work w;
  w.scene = p, w.shot = p->shots + i;
  /* As XLA does with indices that are out of range. */
  const int64_t wanted = p->track[i], track = wanted < 0 ? 0 : wanted < p->tracks ? wanted : p->tracks - 1;
  w.strips = p->strips + track * (SECTIONS + 1) * COLUMNS;
  w.colours = p->colours + track * 3 * CHANNELS;
  w.nearest = p->nearest + track * p->cells * p->cells;
  w.distant = p->distant + track * p->texels;
  uint8_t visited[SECTIONS + 1];
  memcpy(visited, p->visited + i * SECTIONS, SECTIONS);
  visited[SECTIONS] = 0;
  w.visited = visited;
  w.outline = p->constants->outline / w.shot->zoom;
  memset(w.made, 0, sizeof w.made);
  for (int channel = 0; channel < CHANNELS; channel++) memset(w.picture[channel], 0, 4 * (size_t)(p->h * p->w));
  if (w.shot->zoom < p->constants->distant) add_from_afar(&w);
  else add_samples(&w);
  add_car(&w);
  pack(&w, p->out + i * p->h * p->w * CHANNELS);
}

/* (what `drawing._natively` passes) -> pictures uint8 [B, H, W, 3] */
XLA_FFI_Error *wm_jax_scene(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *out = result(frame, 0), *nearest = argument(frame, 3), *distant = argument(frame, 5);
  const XLA_FFI_Buffer *hull = argument(frame, 10);
  const XLA_FFI_Buffer *column_weights = argument(frame, 13), *row_weights = argument(frame, 14);
  Scene scene = {
      .tracks = nearest->dims[0], .cells = nearest->dims[1], .h = out->dims[1], .w = out->dims[2],
      .track = argument(frame, 0)->data, .visited = argument(frame, 1)->data, .shots = argument(frame, 2)->data,
      .nearest = nearest->data, .strips = argument(frame, 4)->data, .distant = distant->data,
      .texels = distant->dims[1], .colours = argument(frame, 6)->data,
      .constants = argument(frame, 7)->data, .columns = argument(frame, 8)->data, .rows = argument(frame, 9)->data,
      .hull = hull->data, .polygons = hull->dims[0],
      .sample_columns = argument(frame, 11)->data, .sample_rows = argument(frame, 12)->data,
      .column_weights = column_weights->data, .row_weights = row_weights->data, .wheels = argument(frame, 15)->data,
      .part_w = column_weights->dims[0], .samples_x = column_weights->dims[1],
      .part_h = row_weights->dims[0], .samples_y = row_weights->dims[1],
      .part_x = attribute(frame, "part_x"), .part_y = attribute(frame, "part_y"), .out = out->data,
  };
  parallel(frame, out->dims[0], shoot, &scene);
  return NULL;
}
