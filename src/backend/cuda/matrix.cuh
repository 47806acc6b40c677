// Products of many rows on the matrix units, a part of kernels.cu, for weights of 16 or 8 bits.
//
// The units multiply halves and add up in f32. A weight is a half as it is (of bf16 those that a half can hold; integers
// all). A number of the input becomes the sum of two halves, together 22 bits, so that the result is as good as in f32:
// two products instead of one. Numbers beyond 65504 count as that.

DEVICE float within_half(float v) { return v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v; }
DEVICE u32 two_halves(const u16* at) { return *(const u32*)at; }

// ---- few rows, such as one for each of several sessions ----------------------------------------------------------------

const u32 FEW = 64; // from more on, tiles of EDGE x EDGE results pay

template <int KIND> DEVICE u16 weight_half(uint4 v, u32 c) {
  u32 word = word_of(v, c / 2);
  if (KIND == WEIGHT_F16) return (u16)(c & 1 ? word >> 16 : word & 0xffffu);
  return float_to_half(within_half(pick(v, KIND, c)));
}
// Four numbers of a row from k on, zeros beyond its end; `aligned` where it stands at a multiple of 16 bytes.
DEVICE void four(float out[4], const float* x, u32 k, u32 n, bool aligned) {
  if (aligned && k + 4 <= n) {
    uint4 v = __ldcg((const uint4*)(x + k));
    for (u32 i = 0; i < 4; i++) out[i] = __uint_as_float(word_of(v, i));
  } else {
    for (u32 i = 0; i < 4; i++) out[i] = k + i < n ? __ldcg(x + k + i) : 0.0f;
  }
}
DEVICE u32 two(u16 low, u16 high) { return low | (u32)high << 16; }
// The first two of the numbers as halves, and what is left of them.
DEVICE void split(const float* x, u32& high, u32& low) {
  u16 a = float_to_half(within_half(x[0])), b = float_to_half(within_half(x[1]));
  high = two(a, b);
  low = two(float_to_half(within_half(x[0] - half_to_float(a))), float_to_half(within_half(x[1] - half_to_float(b))));
}

// A block makes 8 outputs of 16 rows. Its warps share out the inputs: weights and inputs come in as they stand, without a
// barrier, and in the end the warps' sums are added up. Which inputs are multiplied in one go does not matter as long as
// weights and rows agree: a lane has neighbours, a vector of weights and as many numbers of its two rows.
template <int KIND> DEVICE void matmul_few(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  const u32 per = KIND == WEIGHT_INT8 ? 16 : 8, span = 4 * per;
  u32 n = n_rows(s), wide = (a.outputs + 7) / 8, high = (n + 15) / 16;
  u32 warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
  const float* rows = x_row(s, 0);
  bool aligned = a.x % 4 == 0 && a.x_stride % 4 == 0;
  for (u32 task = block; task < wide * high; task += blocks) {
    u32 left = task % wide * 8, top = task / wide * 16, row = top + group;
    // Beyond the last row and output there are zeros.
    u32 n0 = row < n ? a.inputs : 0, n1 = row + 8 < n ? a.inputs : 0, vectors = left + group < a.outputs ? a.w_stride : 0;
    const float *x0 = rows + (u64)min(row, n - 1) * a.x_stride, *x1 = rows + (u64)min(row + 8, n - 1) * a.x_stride;
    const uint4* weights = s.w + (u64)min(left + group, a.outputs - 1) * a.w_stride;
    float sums[4] = {};
    for (u32 k = warp * span + lane * per; k - lane * per < a.inputs; k += WARPS * span) {
      uint4 w = make_uint4(0, 0, 0, 0);
      if (k / per < vectors) w = __ldg(weights + k / per);
#pragma unroll 1
      for (u32 c = 0; c < per; c += 4) {
        float v0[4], v1[4];
        u32 high0, low0, high1, low1;
        four(v0, x0, k + c, n0, aligned);
        four(v1, x1, k + c, n1, aligned);
#pragma unroll
        for (u32 i = 0; i < 4; i += 2) {
          u32 b = two(weight_half<KIND>(w, c + i), weight_half<KIND>(w, c + i + 1));
          split(v0 + i, high0, low0);
          split(v1 + i, high1, low1);
          multiply_add(sums, high0, high1, b);
          multiply_add(sums, low0, low1, b);
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < 4; i++) sm.work.x[(warp * 16 + group + i / 2 * 8) * 8 + lane * 2 + i % 2] = sums[i];
    __syncthreads();
    u32 i = threadIdx.x;
    if (i < 128) {
      float sum = 0.0f;
      for (u32 from = 0; from < WARPS; from++) sum += sm.work.x[from * 128 + i];
      if (top + i / 8 < n && left + i % 8 < a.outputs) finish(s, top + i / 8, left + i % 8, sum);
    }
    __syncthreads();
  }
}

// ---- many rows ---------------------------------------------------------------------------------------------------------

// A block makes tiles of EDGE x EDGE results; its warps stand 2 x 4, with 32 x 16 results each.
DEVICE void matmul_halves(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  Halves& h = sm.work.halves;
  u32 n = n_rows(s), per = per_vector(a.w_kind), vectors = DEEP / per;
  u32 wide = (a.outputs + EDGE - 1) / EDGE, high = (n + EDGE - 1) / EDGE;
  u32 warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
  const float* rows = x_row(s, 0);
  u32 row0 = warp / 4 * 32 + group, output0 = warp % 4 * 16;
  for (u32 task = block; task < wide * high; task += blocks) {
    u32 left = task % wide * EDGE, top = task / wide * EDGE;
    float sums[2][2][4] = {};
    for (u32 start = 0; start < a.inputs; start += DEEP) {
      for (u32 i = threadIdx.x; i < EDGE * DEEP; i += THREADS) {
        u32 row = i / DEEP, k = i % DEEP;
        float x = 0.0f;
        if (top + row < n && start + k < a.inputs) x = __ldcg(rows + (u64)(top + row) * a.x_stride + start + k);
        u16 bits = float_to_half(within_half(x));
        h.high[row][k] = bits;
        h.low[row][k] = float_to_half(within_half(x - half_to_float(bits)));
      }
      for (u32 i = threadIdx.x; i < EDGE * vectors; i += THREADS) {
        u32 output = i / vectors, at = start / per + i % vectors;
        uint4 w = make_uint4(0, 0, 0, 0);
        if (left + output < a.outputs && at < a.w_stride) w = __ldg(s.w + (u64)(left + output) * a.w_stride + at);
        for (u32 c = 0; c < per; c++)
          h.w[output][i % vectors * per + c] = float_to_half(within_half(pick(w, a.w_kind, c)));
      }
      __syncthreads();
      for (u32 k = pair; k < DEEP; k += 8)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          u32 w = two_halves(&h.w[output0 + j * 8 + group][k]);
#pragma unroll
          for (u32 i = 0; i < 2; i++) {
            u32 row = row0 + i * 16;
            multiply_add(sums[i][j], two_halves(&h.high[row][k]), two_halves(&h.high[row + 8][k]), w);
            multiply_add(sums[i][j], two_halves(&h.low[row][k]), two_halves(&h.low[row + 8][k]), w);
          }
        }
      __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
      for (u32 j = 0; j < 2; j++)
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
          u32 row = row0 + i * 16 + c / 2 * 8, output = output0 + j * 8 + pair + c % 2;
          sm.work.x[row * EDGE + output] = sums[i][j][c];
        }
    finish_tile(s, sm, top, left, n);
  }
}
