// The kernels of the CUDA engine, one for each step of a plan (backend/gpu/plan.rs); twins of backend/wgpu/kernels.wgsl.
//
// Written without headers, so that NVRTC compiles them to the committed kernels.ptx (scripts/build-ptx), and a C++
// compiler with tests/cuda/shim.h to the fake driver that the tests run on machines without a GPU.
//
// Every step is a function of (step, block, blocks): it does its share of the work, however many blocks there are. So
// each is a kernel of its own, and `run_program` can run a whole list of them in one launch, with a barrier of the
// whole grid between two steps. A kernel has its step inlined, so that it reads its arguments from the
// constants of the launch; the program calls its steps, which then need no more registers than the largest of them.
// Products and sums are fused only where it says so, and not where the compiler likes to: both have the same bits.
#ifdef GRUG_SHIM
#include "shim.h"
#else
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
#define DEVICE static __device__ __forceinline__
#define CALLED static __device__ __noinline__
// Two blocks are to fit on a multiprocessor.
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 2)
#define SHARED(name) __shared__ Shared name
#define PAUSE()
DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); } // a b + c
DEVICE float half_to_float(u16 bits) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
  return f;
}
DEVICE u16 float_to_half(float f) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f));
  return bits;
}
// d += A B of a warp, which has 16 x 8 halves of A in a0 and a1 and 8 x 8 of B in b.
DEVICE void multiply_add(float d[4], u32 a0, u32 a1, u32 b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(b));
}
DEVICE u32 load_acquire(const u32* p) {
  u32 v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
#endif

// As in backend/gpu/args.rs, word for word; a test compares them.
struct Args {
  u32 rows, skip, inputs, outputs, x, x_stride, x_shift, y, y_stride, y_shift, w_stride, w_kind, scales, bias,
      prologue, gain, gain_bias, rms, epilogue, scalar, add, positions, heads, kv_heads, head_dim, capacity, causal,
      window, qk_norm, cos, sin, store, divide, coarse, start, pad, padding;
};
enum { WEIGHT_F32 = 0, WEIGHT_F16 = 1, WEIGHT_BF16 = 2, WEIGHT_INT8 = 3 };
enum { PROLOGUE_NONE = 0, PROLOGUE_NORM = 1, PROLOGUE_SWIGLU = 2, PROLOGUE_CURVED = 3 };
enum { EPILOGUE_NONE = 0, EPILOGUE_GELU = 1, EPILOGUE_RELU = 2, EPILOGUE_RELU2 = 3, EPILOGUE_SOFTCAP = 4 };
enum { PADDING_ZEROS = 0, PADDING_REFLECT = 1, PADDING_REPLICATE = 2, PADDING_CIRCULAR = 3 };
// As in backend/gpu/plan.rs.
enum { STATE_FIRST = 0, STATE_BASE = 1, STATE_DRAWS = 2, STATE_TEMPERATURE = 6, STATE_FAILED = 10, STATE_CHOSEN = 11,
       STATE_DIMS = 16 };
enum { EMBED = 0, PAD = 1, LINEAR = 2, MATMUL = 3, NORM = 4, STORE_KV = 5, ATTENTION = 6, ACTIVATE = 7, COPY_ROWS = 8,
       JOIN = 9, SAMPLE = 10 };

const u32 NONE = 0xffffffffu;
const float NORM_EPS = 1e-5f;
const u32 THREADS = 256, WARPS = 8;
const u32 TILE = 4096;     // numbers of a row at a time
const u32 MAX_HEAD = 1024; // numbers in an attention head at most
const u32 EDGE = 64, DEPTH = 16; // of the tiles of a product of many rows

// A session whose row is one of several in a pass: what it remembers, where its row stands, the byte that comes in,
// whether one is to be chosen, the one that was (or NONE), and how: STATE_DRAWS and what follows it in the state.
struct Member {
  float* act;
  u32* bytes;
  float* const* caches;
  u32 first, byte, draws, chosen, options[8];
};

// A step with everything it touches. With `members`, row i is that session's; otherwise all rows are of one session.
struct Step {
  const uint4* w;
  const float* consts;
  float *act, *kv;
  u32 *st, *bytes;
  Member* members;
  Args a;
  u32 kernel, cache;
};

// What the threads of a block share, by what they are doing.
struct Tiles { float x[DEPTH][EDGE + 4], w[DEPTH][EDGE + 4]; };
// Rows of DEEP numbers as halves, padded so that the lanes of a warp read different banks.
const u32 DEEP = 32;
struct Halves { u16 high[EDGE][DEEP + 8], low[EDGE][DEEP + 8], w[EDGE][DEEP + 8]; };
struct Attend { float query[MAX_HEAD], key[MAX_HEAD], mixed[MAX_HEAD], weights[THREADS], raw[MAX_HEAD]; };
struct Choice { float logits[256], ranked[256], weights[256]; u32 kept, failed; };
union Work { float x[TILE]; Tiles tile; Halves halves; Attend attend; Choice sample; };
struct Shared {
  Work work;
  float sums[WARPS];
  Step step;
};

DEVICE u32 n_rows(const Step& s) { return __ldcg(s.st + STATE_DIMS + s.a.rows); }
DEVICE u32 skipped(const Step& s) { return __ldcg(s.st + STATE_DIMS + s.a.skip); }
// The position of a row, in the stream that the step belongs to.
DEVICE u32 place_of(const Step& s, u32 row) {
  u32 divide = max(s.a.divide, 1u);
  return s.members ? s.members[row].first / divide : __ldcg(s.st + STATE_FIRST) / divide + row;
}
DEVICE float* row_at(const Step& s, u32 at, u32 stride, u32 shift, u32 row) {
  if (!shift) return s.act + at + (u64)row * stride;
  return (s.members ? s.members[row].act : s.act) + at + (u64)place_of(s, row) * stride;
}
DEVICE const float* x_row(const Step& s, u32 row) { return row_at(s, s.a.x, s.a.x_stride, s.a.x_shift, row); }
DEVICE float* y_row(const Step& s, u32 row) { return row_at(s, s.a.y, s.a.y_stride, s.a.y_shift, row); }

// ---- numbers -------------------------------------------------------------------------------------------------------

DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

DEVICE float epilogue(const Args& a, float v) {
  switch (a.epilogue) {
    case EPILOGUE_GELU: return gelu(v);
    case EPILOGUE_RELU: return fmaxf(v, 0.0f);
    case EPILOGUE_RELU2: v = fmaxf(v, 0.0f); return v * v;
    case EPILOGUE_SOFTCAP: { float c = __uint_as_float(a.scalar); return c * tanhf(v / c); }
    default: return v;
  }
}

// What is added to number c of the row at this position.
DEVICE float position(const Step& s, u32 row, u32 c) {
  if (s.a.positions == NONE) return 0.0f;
  return __ldg(s.consts + s.a.positions + (u64)place_of(s, row) * s.a.outputs + c);
}

DEVICE float bf16_low(u32 word) { return __uint_as_float(word << 16); }
DEVICE float bf16_high(u32 word) { return __uint_as_float(word & 0xffff0000u); }
DEVICE u32 per_vector(u32 kind) { return kind == WEIGHT_F32 ? 4u : kind == WEIGHT_INT8 ? 16u : 8u; }
// Byte i of a word, with its sign.
DEVICE float signed_byte(u32 word, u32 i) { return (float)((int)(word << (24 - 8 * i)) >> 24); }
DEVICE u32 word_of(uint4 v, u32 i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
// Number c of a vector of weights.
DEVICE float pick(uint4 v, u32 kind, u32 c) {
  if (kind == WEIGHT_F32) return __uint_as_float(word_of(v, c));
  if (kind == WEIGHT_INT8) return signed_byte(word_of(v, c / 4), c % 4);
  u32 word = word_of(v, c / 2);
  if (kind == WEIGHT_F16) return half_to_float((u16)(c & 1 ? word >> 16 : word & 0xffffu));
  return c & 1 ? bf16_high(word) : bf16_low(word);
}

// A word of weights times the numbers from x on, and what was added up before.
template <int KIND> DEVICE float dot_word(u32 word, const float* x, float sum) {
  if (KIND == WEIGHT_F32) return fused(__uint_as_float(word), x[0], sum);
  if (KIND == WEIGHT_F16)
    return fused(half_to_float((u16)(word >> 16)), x[1], fused(half_to_float((u16)(word & 0xffffu)), x[0], sum));
  if (KIND == WEIGHT_INT8) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum = fused(signed_byte(word, i), x[i], sum);
    return sum;
  }
  return fused(bf16_high(word), x[1], fused(bf16_low(word), x[0], sum));
}
// A vector of weights times the numbers from x on, and what was added up before.
template <int KIND> DEVICE float dot_vector(uint4 w, const float* x, float sum) {
  const u32 n = KIND == WEIGHT_F32 ? 1 : KIND == WEIGHT_INT8 ? 4 : 2;
  sum = dot_word<KIND>(w.y, x + n, dot_word<KIND>(w.x, x, sum));
  return dot_word<KIND>(w.w, x + 3 * n, dot_word<KIND>(w.z, x + 2 * n, sum));
}

// ---- work that a block shares --------------------------------------------------------------------------------------

DEVICE float warp_sum(float v) {
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
DEVICE float warp_max(float v) {
  for (int o = 16; o > 0; o /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
DEVICE float block_sum(Shared& sm, float v) {
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) sm.sums[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0.0f;
  for (u32 i = 0; i < WARPS; i++) sum += sm.sums[i];
  __syncthreads();
  return sum;
}
DEVICE float block_max(Shared& sm, float v) {
  v = warp_max(v);
  if (threadIdx.x % 32 == 0) sm.sums[threadIdx.x / 32] = v;
  __syncthreads();
  float largest = sm.sums[0];
  for (u32 i = 1; i < WARPS; i++) largest = fmaxf(largest, sm.sums[i]);
  __syncthreads();
  return largest;
}

// What a prologue needs to know of a whole row.
struct Statistics { float shift, scale; };
DEVICE Statistics row_statistics(const Step& s, Shared& sm, const float* x) {
  const Args& a = s.a;
  Statistics t = {0.0f, 1.0f};
  if (a.prologue == PROLOGUE_NORM) {
    if (!a.rms) {
      float sum = 0.0f;
      for (u32 i = threadIdx.x; i < a.inputs; i += THREADS) sum += __ldcg(x + i);
      t.shift = block_sum(sm, sum) / (float)a.inputs;
    }
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < a.inputs; i += THREADS) {
      float d = __ldcg(x + i) - t.shift;
      squares = fused(d, d, squares);
    }
    t.scale = 1.0f / sqrtf(block_sum(sm, squares) / (float)a.inputs + NORM_EPS);
  } else if (a.prologue == PROLOGUE_CURVED) {
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < a.inputs; i += THREADS) { float h = __ldcg(x + i); squares = fused(h, h, squares); }
    t.scale = 1.0f + __uint_as_float(a.scalar) * 0.5f * block_sum(sm, squares);
  }
  return t;
}
// Number i of a row after the prologue.
DEVICE float prologue(const Step& s, const float* x, u32 i, Statistics t) {
  const Args& a = s.a;
  float v = __ldcg(x + i);
  switch (a.prologue) {
    case PROLOGUE_NORM:
      v = (v - t.shift) * t.scale;
      return fused(v, __ldg(s.consts + a.gain + i), a.gain_bias == NONE ? 0.0f : __ldg(s.consts + a.gain_bias + i));
    case PROLOGUE_SWIGLU: return silu(v) * __ldcg(x + a.inputs + i);
    case PROLOGUE_CURVED: return gelu(v / t.scale);
    default: return v;
  }
}
DEVICE void finish(const Step& s, u32 row, u32 output, float sum) {
  const Args& a = s.a;
  if (a.scales != NONE) sum *= __ldg(s.consts + a.scales + output);
  if (a.bias != NONE) sum += __ldg(s.consts + a.bias + output);
  float v = epilogue(a, sum) + position(s, row, output);
  float* y = y_row(s, row) + output;
  *y = a.add ? __ldcg(y) + v : v;
}

// ---- embed: the rows of the tables -----------------------------------------------------------------------------------

DEVICE void embed_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 rows = n_rows(s), base = __ldcg(s.st + STATE_BASE);
  for (u64 i = (u64)block * THREADS + threadIdx.x; i < (u64)rows * a.outputs; i += (u64)blocks * THREADS) {
    u32 row = (u32)(i / a.outputs), c = (u32)(i % a.outputs);
    u32* at = s.members ? s.members[row].bytes + s.members[row].first : s.bytes + base + row;
    u32 byte = s.members ? s.members[row].byte : __ldcg(at), n = per_vector(a.w_kind);
    if (s.members && c == 0) *at = byte;
    float v = pick(__ldg(s.w + (u64)byte * a.w_stride + c / n), a.w_kind, c % n);
    y_row(s, row)[c] = v + position(s, row, c);
  }
}

// ---- pad_sides: the rows beyond a convolution's input --------------------------------------------------------------

DEVICE void pad_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 n = n_rows(s);
  float* x = s.act + a.x;
  for (u32 i = block * THREADS + threadIdx.x; i < 2 * a.pad * a.inputs; i += blocks * THREADS) {
    u32 line = i / a.inputs, c = i % a.inputs, distance = line % a.pad + 1, from = 0;
    bool left = line < a.pad;
    if (a.padding == PADDING_REFLECT) from = left ? distance : n - 1 - distance;
    if (a.padding == PADDING_REPLICATE) from = left ? 0 : n - 1;
    if (a.padding == PADDING_CIRCULAR) from = left ? n - distance : distance - 1;
    float v = a.padding == PADDING_ZEROS ? 0.0f : __ldcg(x + (u64)from * a.x_stride + c);
    float* to = left ? x - (u64)distance * a.x_stride : x + (u64)(n - 1 + distance) * a.x_stride;
    to[c] = v;
  }
}

// ---- linear: a matrix times rows, one by one; a warp an output -----------------------------------------------------

// A lane's share of a row of weights, of `end` vectors, times the numbers from x on.
template <int KIND> DEVICE float dot_lane(const uint4* w, const float* x, u32 end) {
  const u32 per = KIND == WEIGHT_F32 ? 4 : KIND == WEIGHT_INT8 ? 16 : 8;
  float sums[4] = {};
  u32 i = threadIdx.x % 32;
  // Four loads in flight.
  for (; i + 96 < end; i += 128) {
    uint4 loaded[4];
#pragma unroll
    for (u32 j = 0; j < 4; j++) loaded[j] = __ldg(w + i + 32 * j);
#pragma unroll
    for (u32 j = 0; j < 4; j++) sums[j] = dot_vector<KIND>(loaded[j], x + (i + 32 * j) * per, sums[j]);
  }
  for (; i < end; i += 32) sums[0] = dot_vector<KIND>(__ldg(w + i), x + i * per, sums[0]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}
DEVICE float dot_lane(u32 kind, const uint4* w, const float* x, u32 end) {
  switch (kind) {
    case WEIGHT_F32: return dot_lane<WEIGHT_F32>(w, x, end);
    case WEIGHT_F16: return dot_lane<WEIGHT_F16>(w, x, end);
    case WEIGHT_BF16: return dot_lane<WEIGHT_BF16>(w, x, end);
    default: return dot_lane<WEIGHT_INT8>(w, x, end);
  }
}
DEVICE void linear_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 per = per_vector(a.w_kind), warp = threadIdx.x / 32;
  u32 groups = (a.outputs + WARPS - 1) / WARPS, tasks = groups * n_rows(s), held = NONE;
  bool whole = a.inputs <= TILE; // then a row is brought in once
  Statistics t = {0.0f, 1.0f};
  for (u32 task = block; task < tasks; task += blocks) {
    u32 row = task / groups, output = task % groups * WARPS + warp;
    const float* x = x_row(s, row);
    bool fresh = row != held;
    if (fresh) t = row_statistics(s, sm, x);
    held = row;
    float sum = 0.0f;
    for (u32 start = 0; start < a.inputs; start += TILE) {
      if (!whole || fresh) {
        __syncthreads();
        u32 end = min(TILE, a.w_stride * per - start);
        for (u32 i = threadIdx.x; i < end; i += THREADS)
          sm.work.x[i] = start + i < a.inputs ? prologue(s, x, start + i, t) : 0.0f;
        __syncthreads();
      }
      if (output < a.outputs) {
        const uint4* w = s.w + (u64)output * a.w_stride + start / per;
        sum += dot_lane(a.w_kind, w, sm.work.x, min(TILE / per, a.w_stride - start / per));
      }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0 && output < a.outputs) finish(s, row, output, sum);
  }
  __syncthreads();
}

// ---- matmul: a matrix times many rows; a block makes tiles of EDGE x EDGE results, a thread 4 x 4 of them ----------

// The tile of results that the block has put into shared memory.
DEVICE void finish_tile(const Step& s, Shared& sm, u32 top, u32 left, u32 n) {
  __syncthreads();
  for (u32 i = threadIdx.x; i < EDGE * EDGE; i += THREADS) {
    u32 row = top + i / EDGE, output = left + i % EDGE;
    if (row < n && output < s.a.outputs) finish(s, row, output, sm.work.x[i]);
  }
  __syncthreads();
}

#include "matrix.cuh"

// With f32 weights.
DEVICE void matmul_plain(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 n = n_rows(s), per = per_vector(a.w_kind), vectors = DEPTH / per;
  u32 wide = (a.outputs + EDGE - 1) / EDGE, high = (n + EDGE - 1) / EDGE;
  u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const float* x = x_row(s, 0); // rows of products in tiles are of one buffer
  for (u32 task = block; task < wide * high; task += blocks) {
    u32 left = task % wide * EDGE, top = task / wide * EDGE;
    float sums[4][4] = {};
    for (u32 start = 0; start < a.inputs; start += DEPTH) {
      for (u32 i = threadIdx.x; i < EDGE * DEPTH; i += THREADS) {
        u32 row = top + i / DEPTH, k = start + i % DEPTH;
        sm.work.tile.x[i % DEPTH][i / DEPTH] = row < n && k < a.inputs ? __ldcg(x + (u64)row * a.x_stride + k) : 0.0f;
      }
      for (u32 i = threadIdx.x; i < EDGE * vectors; i += THREADS) {
        u32 output = left + i / vectors, at = start / per + i % vectors;
        uint4 w = make_uint4(0, 0, 0, 0);
        if (output < a.outputs && at < a.w_stride) w = __ldg(s.w + (u64)output * a.w_stride + at);
        for (u32 c = 0; c < per; c++) sm.work.tile.w[i % vectors * per + c][i / vectors] = pick(w, a.w_kind, c);
      }
      __syncthreads();
      for (u32 k = 0; k < DEPTH; k++)
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
          for (u32 j = 0; j < 4; j++)
            sums[i][j] = fused(sm.work.tile.x[k][ty * 4 + i], sm.work.tile.w[k][tx * 4 + j], sums[i][j]);
      __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
      for (u32 j = 0; j < 4; j++) sm.work.x[(ty * 4 + i) * EDGE + tx * 4 + j] = sums[i][j];
    finish_tile(s, sm, top, left, n);
  }
}
DEVICE void matmul_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  if (s.a.w_kind == WEIGHT_F32) matmul_plain(s, sm, block, blocks);
  else if (n_rows(s) > FEW) matmul_halves(s, sm, block, blocks);
  else if (s.a.w_kind == WEIGHT_F16) matmul_few<WEIGHT_F16>(s, sm, block, blocks);
  else if (s.a.w_kind == WEIGHT_BF16) matmul_few<WEIGHT_BF16>(s, sm, block, blocks);
  else matmul_few<WEIGHT_INT8>(s, sm, block, blocks);
}

// ---- norm and activate: prologues on many rows; a block a row ------------------------------------------------------

DEVICE void norm_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  for (u32 row = block, n = n_rows(s); row < n; row += blocks) {
    const float* x = x_row(s, row);
    float* y = y_row(s, row);
    Statistics t = row_statistics(s, sm, x);
    for (u32 i = threadIdx.x; i < s.a.inputs; i += THREADS) y[i] = prologue(s, x, i, t) + position(s, row, i);
  }
}

// ---- store_kv and attention ------------------------------------------------------------------------------------------
// The cache holds keys as (kv_heads, head_dim, capacity), so that threads read neighbours, and after them values as
// (kv_heads, capacity, head_dim).

// The head that stands at x, normalized and turned to its place, into out.
DEVICE void turn_head(const Step& s, Shared& sm, const float* x, u32 place, float* out) {
  const Args& a = s.a;
  u32 dim = a.head_dim, half = dim / 2;
  float scale = 1.0f;
  if (a.qk_norm) {
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < dim; i += THREADS) { float v = __ldcg(x + i); squares = fused(v, v, squares); }
    scale = 1.0f / sqrtf(block_sum(sm, squares) / (float)dim + NORM_EPS);
  }
  for (u32 i = threadIdx.x; i < dim; i += THREADS) sm.work.attend.raw[i] = __ldcg(x + i) * scale;
  __syncthreads();
  for (u32 i = threadIdx.x; i < dim; i += THREADS) {
    float v = sm.work.attend.raw[i];
    if (a.cos != NONE) {
      u64 angle = (u64)place * half + i % half;
      float c = __ldg(s.consts + a.cos + angle), sine = __ldg(s.consts + a.sin + angle);
      v = i < half ? v * c - sm.work.attend.raw[i + half] * sine : sm.work.attend.raw[i - half] * sine + v * c;
    }
    out[i] = v;
  }
  __syncthreads();
}
DEVICE float* cache_of(const Step& s, u32 row) { return s.members ? s.members[row].caches[s.cache] : s.kv; }
DEVICE float* key_of(const Step& s, float* cache, u32 head, u32 place) {
  return cache + (u64)head * s.a.head_dim * s.a.capacity + place;
}
DEVICE float* value_of(const Step& s, float* cache, u32 head, u32 place) {
  return cache + ((u64)(s.a.kv_heads + head) * s.a.capacity + place) * s.a.head_dim;
}
// Keeps the key in shared memory, and the value that stands at x, of a head.
DEVICE void keep(const Step& s, float* cache, const float* key, const float* value, u32 head, u32 place) {
  for (u32 i = threadIdx.x; i < s.a.head_dim; i += THREADS) {
    key_of(s, cache, head, place)[(u64)i * s.a.capacity] = key[i];
    value_of(s, cache, head, place)[i] = __ldcg(value + i);
  }
}

// Queries of a row into place, its keys and values into the cache; a block a head.
DEVICE void store_kv_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 heads = a.heads + a.kv_heads;
  for (u32 task = block, n = n_rows(s) * heads; task < n; task += blocks) {
    u32 row = task / heads, head = task % heads, place = place_of(s, row);
    float* x = s.act + a.x + (u64)row * a.x_stride;
    turn_head(s, sm, x + head * a.head_dim, place, sm.work.attend.key);
    if (head < a.heads) {
      for (u32 i = threadIdx.x; i < a.head_dim; i += THREADS) x[head * a.head_dim + i] = sm.work.attend.key[i];
    } else {
      keep(s, s.kv, sm.work.attend.key, x + (head + a.kv_heads) * a.head_dim, head - a.heads, place);
    }
    __syncthreads();
  }
}

// A head of a row over the cache; a block each. In runs of THREADS positions, with the running maximum and sum of the
// softmax. With `store` it does the work of store_kv for a session's single row on the way.
DEVICE void attention_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 dim = a.head_dim, skip = skipped(s), asking = n_rows(s) - skip, group = a.heads / a.kv_heads;
  // Threads share the positions of a run by parts, each of which adds up all the numbers of a head.
  u32 parts = dim < THREADS ? THREADS / dim : 1, part = threadIdx.x / dim; // 0 where dim >= THREADS
  for (u32 task = block; task < asking * a.heads; task += blocks) {
    u32 row = task / a.heads + skip, head = task % a.heads, kv_head = head / group, place = place_of(s, row);
    float* cache = cache_of(s, row);
    const float* x = s.act + a.x + (u64)row * a.x_stride;
    const float* own_value = x + (a.heads + a.kv_heads + kv_head) * dim;
    u32 end = a.causal ? place + 1 : n_rows(s), begin = a.window && end > a.window ? end - a.window : 0;
    if (a.store) {
      turn_head(s, sm, x + head * dim, place, sm.work.attend.query);
      turn_head(s, sm, x + (a.heads + kv_head) * dim, place, sm.work.attend.key);
      if (head % group == 0) keep(s, cache, sm.work.attend.key, own_value, kv_head, place);
    } else {
      for (u32 i = threadIdx.x; i < dim; i += THREADS) sm.work.attend.query[i] = __ldcg(x + head * dim + i);
    }
    for (u32 i = threadIdx.x; i < max(THREADS, dim); i += THREADS) sm.work.attend.mixed[i] = 0.0f;
    __syncthreads();
    float largest = -3.0e38f, total = 0.0f, scale = 1.0f / sqrtf((float)dim);
    for (u32 start = begin; start < end; start += THREADS) {
      u32 at = start + threadIdx.x, n = min(THREADS, end - start);
      float score = -3.0e38f;
      if (at < end) {
        float dot = 0.0f;
        if (a.store && at == place) {
          for (u32 i = 0; i < dim; i++) dot = fused(sm.work.attend.query[i], sm.work.attend.key[i], dot);
        } else {
          const float* key = key_of(s, cache, kv_head, at);
#pragma unroll 8
          for (u32 i = 0; i < dim; i++) dot = fused(sm.work.attend.query[i], __ldcg(key + (u64)i * a.capacity), dot);
        }
        score = dot * scale;
      }
      float now = fmaxf(largest, block_max(sm, score));
      float weight = at < end ? expf(score - now) : 0.0f, fade = expf(largest - now);
      sm.work.attend.weights[threadIdx.x] = weight;
      total = fused(total, fade, block_sum(sm, weight));
      largest = now;
      u32 stored = a.store && end - start <= THREADS ? n - 1 : n; // the last one may not be in the cache yet
      for (u32 i = threadIdx.x; i < parts * dim; i += THREADS) {
        u32 c = i % dim;
        float sum = sm.work.attend.mixed[i] * fade;
        const float* value = value_of(s, cache, kv_head, start) + c;
#pragma unroll 4
        for (u32 j = part; j < stored; j += parts)
          sum = fused(sm.work.attend.weights[j], __ldcg(value + (u64)j * dim), sum);
        if (stored < n && stored % parts == part)
          sum = fused(sm.work.attend.weights[stored], __ldcg(own_value + c), sum);
        sm.work.attend.mixed[i] = sum;
      }
      __syncthreads();
    }
    float* y = y_row(s, row - skip) + head * dim;
    for (u32 i = threadIdx.x; i < dim; i += THREADS) {
      float sum = 0.0f;
      for (u32 p = 0; p < parts; p++) sum += sm.work.attend.mixed[p * dim + i];
      y[i] = sum / total;
    }
    __syncthreads();
  }
}

// ---- copy_rows, join ----------------------------------------------------------------------------------------------------

DEVICE void copy_rows_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  u32 n = n_rows(s) * s.a.outputs, skip = skipped(s);
  for (u32 i = block * THREADS + threadIdx.x; i < n; i += blocks * THREADS) {
    u32 row = i / s.a.outputs, c = i % s.a.outputs;
    y_row(s, row)[c] = __ldcg(x_row(s, skip + row) + c);
  }
}

// The states of both streams of a causal model.
DEVICE void join_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  u32 n = n_rows(s) * a.outputs, width = a.outputs - a.inputs;
  for (u32 i = block * THREADS + threadIdx.x; i < n; i += blocks * THREADS) {
    u32 row = i / a.outputs, c = i % a.outputs;
    // A byte uses the last coarse state whose bytes were all there.
    u32 place = s.members ? s.members[row].first : __ldcg(s.st + STATE_FIRST) + skipped(s) + row;
    u32 complete = (place + 1) / a.divide;
    float v;
    if (c < a.inputs) v = __ldcg(x_row(s, row) + c);
    else if (complete == 0) v = __ldg(s.consts + a.start + c - a.inputs);
    else v = __ldcg((s.members ? s.members[row].act : s.act) + a.coarse + (u64)(complete - 1) * width + c - a.inputs);
    y_row(s, row)[c] = v;
  }
}

#include "sample.cuh"

// ---- the kernels -------------------------------------------------------------------------------------------------------

#define STEP_KERNEL(name) \
  KERNEL name(Step s) { SHARED(sm); name##_step(s, sm, blockIdx.x, gridDim.x); }
#define pad_sides_step pad_step
#define activate_step norm_step
STEP_KERNEL(embed)
STEP_KERNEL(pad_sides)
STEP_KERNEL(linear)
STEP_KERNEL(matmul)
STEP_KERNEL(norm)
STEP_KERNEL(store_kv)
STEP_KERNEL(attention)
STEP_KERNEL(activate)
STEP_KERNEL(copy_rows)
STEP_KERNEL(join)
STEP_KERNEL(sample)

#define PROGRAM_STEP(name) \
  CALLED void call_##name(Shared& sm) { name##_step(sm.step, sm, blockIdx.x, gridDim.x); }
PROGRAM_STEP(embed)
PROGRAM_STEP(linear)
PROGRAM_STEP(norm)
PROGRAM_STEP(attention)
PROGRAM_STEP(copy_rows)
PROGRAM_STEP(join)
PROGRAM_STEP(sample)

// Runs the `n` steps that `program` names, of those at `steps`, with a barrier of the whole grid after each. All blocks
// must be resident; `barrier` is 0 before.
KERNEL run_program(const Step* steps, const u32* program, u32 n, u32* barrier) {
  SHARED(sm);
  for (u32 k = 0; k < n; k++) {
    // What a step is comes in while the others finish the one before.
    const u32* from = (const u32*)(steps + __ldg(program + k));
    for (u32 i = threadIdx.x; i < sizeof(Step) / 4; i += THREADS) ((u32*)&sm.step)[i] = __ldg(from + i);
    __syncthreads();
    if (k > 0 && threadIdx.x == 0) {
      while (load_acquire(barrier) < k * gridDim.x) { PAUSE(); }
    }
    __syncthreads();
    switch (sm.step.kernel) {
      case EMBED: call_embed(sm); break;
      case LINEAR: call_linear(sm); break;
      case NORM: case ACTIVATE: call_norm(sm); break;
      case ATTENTION: call_attention(sm); break;
      case COPY_ROWS: call_copy_rows(sm); break;
      case JOIN: call_join(sm); break;
      case SAMPLE: call_sample(sm); break;
      default: break;
    }
    __syncthreads();
    if (threadIdx.x == 0) { __threadfence(); atomicAdd(barrier, 1u); }
  }
}
