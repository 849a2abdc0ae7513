/* Small vectors of floats.
 *
 * GCC's and Clang's vector extensions stand in for intrinsics, so that one text serves AVX-512, AVX2, NEON and SSE; the
 * compiler is told the processor (-march=native). */
#ifndef WM_JAX_SIMD_H
#define WM_JAX_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 12 }; /* 32 registers: ROWS * 2 sums, 2 columns, 1 factor */
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 }; /* 16 registers */
#elif defined(__aarch64__)
enum { LANES = 4, ROWS = 12 };
#else
enum { LANES = 4, ROWS = 6 };
#endif
enum { MAX_ROWS = 12, PANEL = 2 * LANES };

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float unaligned_vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
/* The loop below has a constant number of rounds and its variables belong into registers. */
#define UNROLL _Pragma("GCC unroll 12")

INLINE vec load(const float *p) { return *(const unaligned_vec *)p; }
INLINE void store(float *p, vec x) { *(unaligned_vec *)p = x; }

/* factor * x + sum, by one instruction where there is one. Left to the compiler, whether a product and a sum become one
 * would depend on the loop around them (GCC's tuning for some processors avoids it), and with it a row's last bits on how
 * many rows a tile has. */
INLINE vec multiply_add(float factor, vec x, vec sum) {
  const vec factors = factor - (vec){0};
#if defined(__FMA__) && defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)factors, (__m512)x, (__m512)sum);
#elif defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)factors, (__m256)x, (__m256)sum);
#elif defined(__aarch64__)
  return (vec)vfmaq_f32((float32x4_t)sum, (float32x4_t)factors, (float32x4_t)x);
#else
  return factors * x + sum;
#endif
}

/* The first `count` lanes; the others are 0 and their memory is not touched. */
INLINE vec load_part(const float *p, int count) {
  if (count >= LANES) return load(p);
  vec x = {0};
  if (count > 0) memcpy(&x, p, (size_t)count * 4);
  return x;
}

INLINE void store_part(float *p, vec x, int count) {
  if (count >= LANES) store(p, x);
  else if (count > 0) memcpy(p, &x, (size_t)count * 4);
}

/* x where `condition` has all bits set, else 0. */
INLINE vec where(ivec condition, vec x) { return (vec)((ivec)x & condition); }

/* a where `condition` has all bits set, else b. */
INLINE vec choose(ivec condition, vec a, vec b) { return (vec)(((ivec)a & condition) | ((ivec)b & ~condition)); }

/* e^x = scale * (1 + rest): scale a power of two, rest Taylor's series of e^r - 1 on |r| <= log(2) / 2, whose error is
 * below 1e-8. x is cut to +-87, where e^x is still a normal number; NaN stays NaN. */
INLINE void exp_parts(vec x, vec *scale, vec *rest) {
  x = choose(x < -87.0f, (vec){0} - 87.0f, x);
  x = choose(x > 87.0f, (vec){0} + 87.0f, x);
  const vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the integer part moves into the last bits */
  const vec n = shifted - 12582912.0f;
  const vec r = x - n * 0.693359375f + n * 2.12194440e-4f; /* log(2) in two parts, the first of few bits */
  vec series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  *rest = series * r * r + r;
  *scale = (vec)(((ivec)shifted << 23) + (127 << 23));
}

INLINE vec sigmoid(vec x) {
  vec scale, rest;
  exp_parts(-x, &scale, &rest);
  return 1.0f / (1.0f + scale + scale * rest);
}

/* By e^2x - 1, which keeps its relative precision near 0. */
INLINE vec hyperbolic_tangent(vec x) {
  vec scale, rest;
  exp_parts(choose(x > 20.0f, (vec){0} + 20.0f, x) * 2.0f, &scale, &rest);
  const vec e = scale * rest + (scale - 1.0f);
  return e / (e + 2.0f);
}

#endif
