/* What a kernel sees of XLA: buffers, attributes, and a loop over XLA's own threads.
 *
 * Over the C interface of XLA's foreign functions (jaxlib ships its header), so that a C compiler is all it takes. */
#ifndef WM_JAX_XLA_H
#define WM_JAX_XLA_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

typedef XLA_FFI_CallFrame Frame;

static inline const XLA_FFI_Buffer *argument(const Frame *frame, int i) { return frame->args.args[i]; }
static inline const XLA_FFI_Buffer *result(const Frame *frame, int i) { return frame->rets.rets[i]; }

/* The integer attribute of this name, which must be there. */
static inline int64_t attribute(const Frame *frame, const char *name) {
  const XLA_FFI_Attrs *attrs = &frame->attrs;
  for (int64_t i = 0; i < attrs->size; i++) {
    const XLA_FFI_ByteSpan *found = attrs->names[i];
    if (found->len == strlen(name) && memcmp(found->ptr, name, found->len) == 0)
      return *(const int64_t *)((const XLA_FFI_Scalar *)attrs->attrs[i])->value;
  }
  abort(); /* A mistake in the Python beside this file. */
}

/* Memory for so many bytes, at a cache line's beginning; without it the process ends, as XLA ends it, with the reason. */
static inline void *allocate(size_t bytes) {
  void *memory = bytes < SIZE_MAX - 64 ? aligned_alloc(64, (bytes / 64 + 1) * 64) : NULL;
  if (memory == NULL) {
    fprintf(stderr, "wm_jax kernels: no memory for %zu bytes; give smaller batches, or free memory\n", bytes);
    abort();
  }
  return memory;
}

/* So many zeros. */
static inline float *allocate_zeros(int64_t count) {
  return memset(allocate((size_t)count * sizeof(float)), 0, (size_t)count * sizeof(float));
}

/* XLA asks every function once for the version of the interface that it was compiled with. */
static inline int is_query(const Frame *frame) {
  const __typeof__(*frame->extension_start) *extension = frame->extension_start; /* named anew in jaxlib 0.11 */
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((const XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

/* One loop whose rounds are shared by threads. Helpers may arrive late, even after the loop has ended: whoever lets go
 * of it last frees it. */
typedef struct {
  void (*round)(void *data, int64_t i);
  void *data;
  int64_t count, step;
  _Atomic int64_t next, done;
  atomic_int holders;
} Loop;

static void work_on(Loop *loop) {
  int64_t first;
  while ((first = atomic_fetch_add(&loop->next, loop->step)) < loop->count) {
    const int64_t end = first + loop->step < loop->count ? first + loop->step : loop->count;
    for (int64_t i = first; i < end; i++) loop->round(loop->data, i);
    atomic_fetch_add(&loop->done, end - first);
  }
}

static void let_go(Loop *loop) {
  if (atomic_fetch_sub(&loop->holders, 1) == 1) free(loop);
}

static void help(void *data) {
  work_on(data);
  let_go(data);
}

static inline int64_t thread_count(const Frame *frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args ask = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &threads};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&ask);
  if (error == NULL) return threads;
  XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  frame->api->XLA_FFI_Error_Destroy(&destroy);
  return 1;
}

/* round(data, i) for i = 0 .. count - 1, on this thread and whichever of XLA's are free. The caller never waits for a
 * helper that has not begun, so a busy pool costs time, not the result. */
static inline void parallel(const Frame *frame, int64_t count, void (*round)(void *, int64_t), void *data) {
  int64_t helpers = thread_count(frame) - 1;
  if (helpers > count - 1) helpers = count - 1;
  Loop *loop = helpers > 0 ? malloc(sizeof(Loop)) : NULL;
  if (loop == NULL) {
    for (int64_t i = 0; i < count; i++) round(data, i);
    return;
  }
  const int64_t step = count / (16 * (helpers + 1));
  *loop = (Loop){.round = round, .data = data, .count = count, .step = step > 0 ? step : 1};
  atomic_init(&loop->holders, 1);
  for (int64_t i = 0; i < helpers; i++) {
    XLA_FFI_ThreadPool_Schedule_Args task = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help, loop};
    atomic_fetch_add(&loop->holders, 1);
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&task);
    if (error != NULL) {
      XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      let_go(loop);
      break;
    }
  }
  work_on(loop);
  while (atomic_load(&loop->done) < count) sched_yield();
  let_go(loop);
}

#endif
