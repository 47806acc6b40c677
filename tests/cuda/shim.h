// CUDA's language for an ordinary C++ compiler, so that kernels.cu runs on machines without a GPU. Every thread of a
// block is a fiber; a barrier lets the others run until all have come. Blocks run one after the other, or all at once
// where they wait for each other. What the memory model of a real device allows beyond that stays unseen.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>

typedef uint32_t u32;
typedef uint16_t u16;
typedef uint64_t u64;
struct uint4 { u32 x, y, z, w; };
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

namespace shim {
struct Index { u32 x; };
extern Index thread, block, grid;      // of the fiber that runs
void yield();                          // lets other fibers run
void block_barrier();                  // waits for the block
u32 exchange(u32 value, u32 lane);     // waits for the warp; what that lane gave
void multiply_add(float d[4], u32 a0, u32 a1, u32 b); // of the warp, by the layout of mma.m16n8k8
void* block_memory(size_t bytes);      // what the block shares
}  // namespace shim

#define DEVICE static inline
#define CALLED static
#define KERNEL extern "C" void
#define SHARED(name) Shared& name = *(Shared*)shim::block_memory(sizeof(Shared))
#define PAUSE() shim::yield()
#define threadIdx shim::thread
#define blockIdx shim::block
#define gridDim shim::grid

using std::max;
using std::min;

template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *(const volatile T*)p; }
static inline uint4 __ldcg(const uint4* p) { return *p; }
static inline u32 load_acquire(const u32* p) { return *(const volatile u32*)p; }
static inline u32 atomicAdd(u32* p, u32 v) { u32 old = *p; *p = old + v; return old; }
static inline void __threadfence() {}
static inline void __syncthreads() { shim::block_barrier(); }
static inline float __uint_as_float(u32 v) { float f; memcpy(&f, &v, 4); return f; }
static inline u32 __float_as_uint(float f) { u32 v; memcpy(&v, &f, 4); return v; }
static inline float __shfl_xor_sync(u32, float v, int mask) {
  return __uint_as_float(shim::exchange(__float_as_uint(v), (shim::thread.x % 32) ^ (u32)mask));
}
using shim::multiply_add;
static inline float fused(float a, float b, float c) { return a * b + c; }
static inline float half_to_float(u16 h);
static inline u16 float_to_half(float f) {
  // The nearest of all halves, the even one of two: there are few enough below and above to look among.
  u32 bits = __float_as_uint(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (u16)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (u16)(sign | 0x7c00u);
  float unit = ldexpf(1.0f, std::max((int)(magnitude >> 23) - 127, -14) - 10);
  float rounded = nearbyintf(__uint_as_float(magnitude) / unit) * unit;
  if (rounded < 0x1p-14f) return (u16)(sign | (u32)(rounded / 0x1p-24f));
  u32 r = __float_as_uint(rounded);
  return (u16)(sign | ((r >> 23) - 112) << 10 | (r >> 13 & 0x3ffu));
}
static inline float half_to_float(u16 h) {
  u32 sign = (u32)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 0) return __uint_as_float(sign | __float_as_uint((float)fraction * 0x1p-24f));
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
