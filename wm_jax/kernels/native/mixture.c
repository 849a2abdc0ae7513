/* The negative log likelihood of numbers under mixtures of Gaussians, and its gradient, in one pass.
 *
 * A row has Z numbers, each with a mixture of its own: raw holds the logits [K, Z], the means [K, Z] and the log deviations
 * [K, Z], the latter with a floor (see wm_jax/models/heads.py). Numbers of a row fill vectors; rows are shared by threads. */
#include <math.h>

#include "simd.h"
#include "tiles.h"
#include "xla.h"

enum { TASK_ROWS = 16 };

typedef struct {
  int64_t rows, mixtures, latents;
  float floor, reach; /* the least log deviation, and e to the power of it */
  const float *raw, *bias, *target;
  float *nll, *d_raw;
} Mixtures;

INLINE vec exponential(vec x) {
  vec scale, rest;
  exp_parts(x, &scale, &rest);
  return scale + scale * rest;
}

/* log(x) of a normal number: x = 2^n f with f near 1, and log(f) = 2 artanh((f - 1) / (f + 1)), whose series ends where
 * its rest is below 1e-9. NaN stays NaN. */
INLINE vec logarithm(vec x) {
  const ivec n = ((ivec)x - 0x3f3504f3) >> 23; /* the bits of sqrt(1/2) */
  const vec f = (vec)((ivec)x - (n << 23));
  const vec t = (f - 1.0f) / (f + 1.0f), square = t * t;
  vec series = square * (1.0f / 9) + 1.0f / 7;
  series = series * square + 1.0f / 5;
  series = series * square + 1.0f / 3;
  series = series * square + 1.0f;
  return __builtin_convertvector(n, vec) * 0.693147181f + 2.0f * t * series + (x - x);
}

/* `count` numbers of a row, from number `z` on; returns their negative log likelihoods, 0 in lanes beyond. With l the logits, m and
 * s the means and log deviations, d = target - m and score = l - (d / e^s)^2 / 2 - s:
 * -log p = log sum e^l - log sum e^score + log sqrt(2 pi). */
INLINE vec numbers_of_row(const Mixtures *p, int64_t row, int64_t z, int count) {
  const int64_t part = p->mixtures * p->latents, first = row * 3 * part + z;
  const float *raw = p->raw + first, *bias = p->bias + z;
  float *d_raw = p->d_raw + first;
  const vec target = load_part(p->target + row * p->latents + z, count);
  vec most = {0}, best = {0};
  for (int64_t k = 0; k < p->mixtures; k++) {
    const int64_t at = k * p->latents;
    const vec logit = load_part(raw + at, count) + load_part(bias + at, count);
    const vec mean = load_part(raw + part + at, count) + load_part(bias + part + at, count);
    const vec given = load_part(raw + 2 * part + at, count) + load_part(bias + 2 * part + at, count);
    const vec deviation = choose(given < p->floor, (vec){0} + p->floor, given);
    const vec narrowness = exponential(-deviation), distance = target - mean, steps = distance * narrowness;
    const vec score = logit - 0.5f * steps * steps - deviation;
    const vec away = choose(distance < 0.0f, -distance, distance);
    const ivec held = (given <= p->floor) & (away <= p->reach);
    most = k ? choose(logit > most, logit, most) : logit;
    best = k ? choose(score > best, score, best) : score;
    /* For the second pass: the gradients but for the components' shares. */
    store_part(d_raw + at, score, count);
    store_part(d_raw + part + at, -steps * narrowness, count);
    store_part(d_raw + 2 * part + at, where(~held, 1.0f - steps * steps), count);
  }
  vec logits = {0}, scores = {0};
  for (int64_t k = 0; k < p->mixtures; k++) {
    const int64_t at = k * p->latents;
    logits += exponential(load_part(raw + at, count) + load_part(bias + at, count) - most);
    const vec likelihood = exponential(load_part(d_raw + at, count) - best);
    scores += likelihood;
    store_part(d_raw + at, likelihood, count);
  }
  const vec of_logits = 1.0f / logits, of_scores = 1.0f / scores;
  for (int64_t k = 0; k < p->mixtures; k++) {
    const int64_t at = k * p->latents;
    const vec weight = of_logits * exponential(load_part(raw + at, count) + load_part(bias + at, count) - most);
    const vec share = of_scores * load_part(d_raw + at, count);
    store_part(d_raw + at, weight - share, count);
    store_part(d_raw + part + at, share * load_part(d_raw + part + at, count), count);
    store_part(d_raw + 2 * part + at, share * load_part(d_raw + 2 * part + at, count), count);
  }
  const vec nll = most - best + logarithm(logits * of_scores) + 0.918938533f;
  vec kept = nll;
  for (int lane = count; lane < LANES; lane++) kept[lane] = 0.0f;
  return kept;
}

static void rows_of_task(void *data, int64_t task) {
  const Mixtures *p = data;
  for (int64_t row = task * TASK_ROWS; row < least((task + 1) * TASK_ROWS, p->rows); row++) {
    vec sums = {0};
    int64_t z = 0;
    for (; z + LANES <= p->latents; z += LANES) sums += numbers_of_row(p, row, z, LANES);
    if (z < p->latents) sums += numbers_of_row(p, row, z, (int)(p->latents - z));
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
    p->nll[row] = sum;
  }
}

/* (raw [N, 3KZ], bias [3KZ], target [N, Z], floor [1]) -> nll [N], its gradient by raw [N, 3KZ] */
XLA_FFI_Error *wm_jax_mixture(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *raw = argument(frame, 0), *target = argument(frame, 2);
  const float floor = *(const float *)argument(frame, 3)->data;
  Mixtures p = {
      .rows = raw->dims[0], .mixtures = raw->dims[1] / (3 * target->dims[1]), .latents = target->dims[1],
      .floor = floor, .reach = expf(floor), .raw = raw->data, .bias = argument(frame, 1)->data,
      .target = target->data, .nll = result(frame, 0)->data, .d_raw = result(frame, 1)->data,
  };
  parallel(frame, tiles_of(p.rows, TASK_ROWS), rows_of_task, &p);
  return NULL;
}
