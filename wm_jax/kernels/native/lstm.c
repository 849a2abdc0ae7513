/* An LSTM over time, forward and backward (Hochreiter & Schmidhuber 1997; gates in the order i, f, g, o).
 *
 * Rows of the batch are independent of each other, so each thread takes some through all steps and never waits for the
 * others. A step's products, its gates and its state are made in registers, from weights laid out panel by panel in the
 * order in which they are read. Going back, the gradient before the gates stays in cache until a few steps have made
 * their share of the weights' gradient: it is never written to memory.
 *
 * T steps, B rows, I inputs, H hidden units; all arrays float32 and dense. */
#include "tiles.h"
#include "xla.h"

enum { GATES = 4, GATE_PANEL = GATES * LANES, GATE_ROWS = ROWS / 2, BLOCK_BYTES = 1 << 19 };

typedef struct {
  int64_t steps, batch, inputs, hidden, groups;
} Sizes;

static int64_t panels_of(const Sizes *s) { return tiles_of(s->hidden, LANES); }

static float *numbers(int64_t count) { return allocate((size_t)count * sizeof(float)); }

/* Zero where an episode begins, else the state before the step: that of step - 1, or the initial one. */
static const float *before(const float *states, const float *initial, const float *zeros, const uint8_t *first,
                           const Sizes *s, int64_t step, int64_t row) {
  if (first[step * s->batch + row]) return zeros;
  return step ? states + ((step - 1) * s->batch + row) * s->hidden : initial + row * s->hidden;
}

/* ---- Forward ---- */

typedef struct {
  Sizes sizes;
  const float *x, *bias, *h0, *c0;
  const uint8_t *first;
  float *weights; /* [panels][I + H][i f g o][LANES], zeros beyond H */
  float *h, *gates, *c;
} Forward;

/* weights [rows, 4H] into panels, from row `begin` of each on. */
static void pack_gates(const float *weights, int64_t rows, int64_t begin, const Sizes *s, float *packed) {
  for (int64_t p = 0; p < panels_of(s); p++)
    for (int64_t row = 0; row < rows; row++)
      for (int64_t gate = 0; gate < GATES; gate++) {
        float *to = packed + ((p * (s->inputs + s->hidden) + begin + row) * GATES + gate) * LANES;
        store(to, load_part(weights + (row * GATES + gate) * s->hidden + p * LANES, (int)least(s->hidden - p * LANES, LANES)));
      }
}

/* A tile of the gates of R rows and LANES units, and what follows from them. */
#define GATES_TILE(R, _)                                                                                  \
  if (R <= GATE_ROWS) {                                                                                                       \
    vec sums[R][4];                                                                                       \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < GATES; g++) sums[r][g] = bias[g];       \
    accumulate(R, GATES, sums, x, s->inputs, s->inputs, weights, GATE_PANEL);                             \
    accumulate(R, GATES, sums, h, s->hidden, s->hidden, weights + s->inputs * GATE_PANEL, GATE_PANEL);    \
    UNROLL for (int r = 0; r < R; r++) {                                                                  \
      const vec i = sigmoid(sums[r][0]), f = sigmoid(sums[r][1]);                                         \
      const vec g = hyperbolic_tangent(sums[r][2]), o = sigmoid(sums[r][3]);                              \
      const vec cell = f * load_part(c + r * s->hidden, left) + i * g;                                    \
      store_part(c + r * s->hidden, cell, left);                                                          \
      store_part(p->c + place + r * s->hidden, cell, left);                                               \
      store_part(p->h + place + r * s->hidden, o * hyperbolic_tangent(cell), left);                       \
      float *gates = p->gates + (place - n) * GATES + r * GATES * s->hidden + n;                          \
      store_part(gates, i, left);                                                                         \
      store_part(gates + s->hidden, f, left);                                                             \
      store_part(gates + 2 * s->hidden, g, left);                                                         \
      store_part(gates + 3 * s->hidden, o, left);                                                         \
    }                                                                                                     \
  }

/* One step of `count` rows from row `row` on; h and c [count, H] are their state, of which c is updated. */
static void forward_step(const Forward *p, int64_t step, int64_t row, int64_t count, const float *h_state, float *c_state) {
  const Sizes *s = &p->sizes;
  const int64_t tiles = tiles_of(count, GATE_ROWS);
  for (int64_t n = 0; n < s->hidden; n += LANES) {
    const float *weights = p->weights + n / LANES * (s->inputs + s->hidden) * GATE_PANEL;
    const int left = (int)least(s->hidden - n, LANES);
    vec bias[GATES];
    for (int g = 0; g < GATES; g++) bias[g] = load_part(p->bias + g * s->hidden + n, left);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t first = tile_begin(t, tiles, count);
      const float *x = p->x + (step * s->batch + row + first) * s->inputs, *h = h_state + first * s->hidden;
      float *c = c_state + first * s->hidden + n;
      const ptrdiff_t place = (step * s->batch + row + first) * s->hidden + n;
      FOR_ROWS(tile_begin(t + 1, tiles, count) - first, GATES_TILE, 0)
    }
  }
}

static void forward_group(void *data, int64_t group) {
  const Forward *p = data;
  const Sizes *s = &p->sizes;
  const int64_t row = tile_begin(group, s->groups, s->batch), count = tile_begin(group + 1, s->groups, s->batch) - row;
  const size_t bytes = (size_t)s->hidden * sizeof(float);
  float *state = numbers(2 * count * s->hidden), *h = state, *c = state + count * s->hidden;
  memcpy(c, p->c0 + row * s->hidden, (size_t)count * bytes);
  for (int64_t step = 0; step < s->steps; step++) {
    for (int64_t r = 0; r < count; r++) {
      const int begins = p->first[step * s->batch + row + r];
      const float *last = step ? p->h + ((step - 1) * s->batch + row + r) * s->hidden : p->h0 + (row + r) * s->hidden;
      if (begins) memset(h + r * s->hidden, 0, bytes), memset(c + r * s->hidden, 0, bytes);
      else memcpy(h + r * s->hidden, last, bytes);
    }
    forward_step(p, step, row, count, h, c);
  }
  free(state);
}

/* (x [T, B, I], wx [I, 4H], wh [H, 4H], bias [4H], first [T, B] bool, h0 [B, H], c0 [B, H])
 * -> h [T, B, H], gates [T, B, 4, H], c [T, B, H] */
XLA_FFI_Error *wm_jax_lstm_forward(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *wh = argument(frame, 2);
  Forward p = {.x = x->data, .bias = argument(frame, 3)->data, .first = argument(frame, 4)->data,
               .h0 = argument(frame, 5)->data, .c0 = argument(frame, 6)->data,
               .h = result(frame, 0)->data, .gates = result(frame, 1)->data, .c = result(frame, 2)->data};
  Sizes *s = &p.sizes;
  *s = (Sizes){x->dims[0], x->dims[1], x->dims[2], wh->dims[0], least(thread_count(frame), x->dims[1])};
  p.weights = numbers(panels_of(s) * (s->inputs + s->hidden) * GATE_PANEL);
  pack_gates(argument(frame, 1)->data, s->inputs, 0, s, p.weights);
  pack_gates(wh->data, s->hidden, s->inputs, s, p.weights);
  parallel(frame, s->groups, forward_group, &p);
  free(p.weights);
  return NULL;
}

/* ---- Backward ---- */

typedef struct {
  Sizes sizes;
  const float *x, *h0, *c0, *h, *gates, *c, *d_h, *d_last_h, *d_last_c;
  const uint8_t *first;
  float *to_h, *to_x;  /* wh and wx transposed, in panels [4H][PANEL] of H or I columns; to_x is NULL if dx is not wanted */
  float *zeros;        /* [H] */
  float *dw, *db, *dx, *d_h0, *d_c0; /* dw [groups, I + H, 4H], db [groups, 4H] */
} Backward;

/* What one thread works in. */
typedef struct {
  int64_t row, count, block; /* its rows, and how many steps are kept before they go into the weights' gradient */
  float *dh, *dc;            /* [count, H], with respect to the state after the step at hand */
  float *inputs, *d_gates;   /* [block, count, I + H] and [block, count, spaced(4H)] */
} Share;

/* The distance between rows of d_gates: 4H, and one vector more where a power of two would put all of them into the same
 * few lines of the cache. */
static int64_t spaced(int64_t width) { return width + LANES; }

/* The gradient before the gates of one row, from that of its state; dc becomes that of the state before. */
static void through_gates(const Sizes *s, const float *gates, const float *c, const float *c_before, const float *d_h,
                          const float *dh, float *dc, float *d_gates) {
  const int64_t hidden = s->hidden;
  for (int64_t n = 0; n < hidden; n += LANES) {
    const int left = (int)least(hidden - n, LANES);
    const vec i = load_part(gates + n, left), f = load_part(gates + hidden + n, left);
    const vec g = load_part(gates + 2 * hidden + n, left), o = load_part(gates + 3 * hidden + n, left);
    const vec tanh_c = hyperbolic_tangent(load_part(c + n, left));
    const vec d = load_part(dh + n, left) + load_part(d_h + n, left);
    const vec d_cell = load_part(dc + n, left) + d * o * (1.0f - tanh_c * tanh_c);
    store_part(d_gates + n, d_cell * g * i * (1.0f - i), left);
    store_part(d_gates + hidden + n, d_cell * load_part(c_before + n, left) * f * (1.0f - f), left);
    store_part(d_gates + 2 * hidden + n, d_cell * i * (1.0f - g * g), left);
    store_part(d_gates + 3 * hidden + n, d * tanh_c * o * (1.0f - o), left);
    store_part(dc + n, d_cell * f, left);
  }
}

/* d_gates [count, spaced(4H)] times a transposed matrix of `width` columns in panels. */
static void times_panels(const Sizes *s, const float *d_gates, int64_t count, const float *panels, float *out, int64_t width) {
  const Span span = {0, 0, GATES * s->hidden};
  const Run run = {d_gates, spaced(GATES * s->hidden), 0, width, count};
  const Finish finish = {.c = out, .width = width};
  for (int64_t n = 0; n < width; n += PANEL) product(&run, &span, 1, panels + n * GATES * s->hidden, PANEL, n, &finish);
}

static void backward_step(const Backward *p, const Share *share, int64_t step, int64_t kept) {
  const Sizes *s = &p->sizes;
  const size_t bytes = (size_t)s->hidden * sizeof(float);
  float *d_gates = share->d_gates + kept * share->count * spaced(GATES * s->hidden);
  for (int64_t r = 0; r < share->count; r++) {
    const int64_t row = share->row + r, place = step * s->batch + row;
    const float *c_before = before(p->c, p->c0, p->zeros, p->first, s, step, row);
    through_gates(s, p->gates + place * GATES * s->hidden, p->c + place * s->hidden, c_before,
                  p->d_h + place * s->hidden, share->dh + r * s->hidden, share->dc + r * s->hidden,
                  d_gates + r * spaced(GATES * s->hidden));
    float *inputs = share->inputs + (kept * share->count + r) * (s->inputs + s->hidden);
    memcpy(inputs, p->x + place * s->inputs, (size_t)s->inputs * sizeof(float));
    memcpy(inputs + s->inputs, before(p->h, p->h0, p->zeros, p->first, s, step, row), bytes);
  }
  times_panels(s, d_gates, share->count, p->to_h, share->dh, s->hidden);
  if (p->to_x)
    times_panels(s, d_gates, share->count, p->to_x, p->dx + (step * s->batch + share->row) * s->inputs, s->inputs);
  for (int64_t r = 0; r < share->count; r++)
    if (p->first[step * s->batch + share->row + r])
      memset(share->dh + r * s->hidden, 0, bytes), memset(share->dc + r * s->hidden, 0, bytes);
}

/* The share of `kept` steps in the weights' gradient. */
static void add_weights(const Sizes *s, const Share *share, int64_t kept, float *dw, float *db) {
  const int64_t width = GATES * s->hidden, rows = s->inputs + s->hidden, tiles = tiles_of(rows, ROWS);
  const Nest nest = {{1, 1, kept * share->count}, {0, 0, rows}, {0, 0, spaced(width)}};
  for (int64_t n = 0; n < width; n += PANEL) {
    const int left = (int)least(width - n, PANEL);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = tile_begin(t, tiles, rows), count = tile_begin(t + 1, tiles, rows) - row;
      const float *a = share->inputs + row, *b = share->d_gates + n;
      outer_tile(count, &nest, a, b, dw + row * width + n, width, left, 0);
    }
  }
  for (int64_t n = 0; n < width; n += LANES) {
    const int left = (int)least(width - n, LANES);
    vec sum = load_part(db + n, left);
    for (int64_t r = 0; r < kept * share->count; r++) sum += load_part(share->d_gates + r * spaced(width) + n, left);
    store_part(db + n, sum, left);
  }
}

static void backward_group(void *data, int64_t group) {
  const Backward *p = data;
  const Sizes *s = &p->sizes;
  const int64_t row = tile_begin(group, s->groups, s->batch), count = tile_begin(group + 1, s->groups, s->batch) - row;
  const int64_t width = GATES * s->hidden, rows = s->inputs + s->hidden;
  const int64_t block = 1 + BLOCK_BYTES / (count * width * (int64_t)sizeof(float));
  const size_t bytes = (size_t)(count * s->hidden) * sizeof(float);
  Share share = {row, count, block, numbers(count * s->hidden), numbers(count * s->hidden),
                 numbers(block * count * rows), numbers(block * count * spaced(width))};
  float *dw = p->dw + group * rows * width, *db = p->db + group * width;
  memset(dw, 0, (size_t)(rows * width) * sizeof(float));
  memset(db, 0, (size_t)width * sizeof(float));
  memcpy(share.dh, p->d_last_h + row * s->hidden, bytes);
  memcpy(share.dc, p->d_last_c + row * s->hidden, bytes);
  int64_t kept = 0;
  for (int64_t step = s->steps - 1; step >= 0; step--) {
    backward_step(p, &share, step, kept++);
    if (kept == block || step == 0) {
      add_weights(s, &share, kept, dw, db);
      kept = 0;
    }
  }
  memcpy(p->d_h0 + row * s->hidden, share.dh, bytes);
  memcpy(p->d_c0 + row * s->hidden, share.dc, bytes);
  free(share.dh), free(share.dc), free(share.inputs), free(share.d_gates);
}

/* weights [columns, 4H], transposed, in panels [4H][PANEL]; zeros beyond the last column. */
static float *pack_transposed(const float *weights, int64_t columns, int64_t width) {
  float *packed = numbers(tiles_of(columns, PANEL) * PANEL * width);
  for (int64_t p = 0; p < tiles_of(columns, PANEL); p++)
    for (int64_t k = 0; k < width; k++)
      for (int64_t n = 0; n < PANEL; n++) {
        const int64_t column = p * PANEL + n;
        packed[(p * width + k) * PANEL + n] = column < columns ? weights[column * width + k] : 0.0f;
      }
  return packed;
}

/* (x, wx, wh, first, h0, c0, and h, gates, c of the forward pass, d_h [T, B, H], d_last_h, d_last_c [B, H])
 * -> dw [groups, I + H, 4H], db [groups, 4H], d_h0, d_c0 [B, H], and dx [T, B, I] if the attribute `input` asks for it */
XLA_FFI_Error *wm_jax_lstm_backward(Frame *frame) {
  if (is_query(frame)) return NULL;
  const XLA_FFI_Buffer *x = argument(frame, 0), *wx = argument(frame, 1), *wh = argument(frame, 2);
  Backward p = {.x = x->data, .first = argument(frame, 3)->data, .h0 = argument(frame, 4)->data,
                .c0 = argument(frame, 5)->data, .h = argument(frame, 6)->data, .gates = argument(frame, 7)->data,
                .c = argument(frame, 8)->data, .d_h = argument(frame, 9)->data, .d_last_h = argument(frame, 10)->data,
                .d_last_c = argument(frame, 11)->data, .dw = result(frame, 0)->data, .db = result(frame, 1)->data,
                .d_h0 = result(frame, 2)->data, .d_c0 = result(frame, 3)->data};
  Sizes *s = &p.sizes;
  *s = (Sizes){x->dims[0], x->dims[1], x->dims[2], wh->dims[0], result(frame, 0)->dims[0]};
  p.zeros = allocate_zeros(s->hidden);
  p.to_h = pack_transposed(wh->data, s->hidden, GATES * s->hidden);
  if (attribute(frame, "input")) {
    p.dx = result(frame, 4)->data;
    p.to_x = pack_transposed(wx->data, s->inputs, GATES * s->hidden);
  }
  parallel(frame, s->groups, backward_group, &p);
  free(p.zeros), free(p.to_h), free(p.to_x);
  return NULL;
}
