// Products of many rows on the matrix units, a part of kernels.cu, for weights of 16 or 8 bits.
//
// The units multiply halves and add up in f32. A weight is a half as it is (of bf16 those that a half can hold; integers
// all). A number of the input becomes the sum of two halves, together 22 bits, so that the result is as good as in f32:
// two products instead of one. Numbers beyond 65504 count as that.

DEVICE float within_half(float v) { return v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v; }
DEVICE u32 two_halves(const u16* at) { return *(const u32*)at; }

// A block makes tiles of EDGE x EDGE results; its warps stand 2 x 4, with 32 x 16 results each.
STEP void matmul_halves(const Step& s, Shared& sm, u32 block, u32 blocks) {
  const Args& a = s.a;
  Halves& h = sm.work.halves;
  u32 n = n_rows(s), per = per_vector(a.w_kind), vectors = DEEP / per;
  u32 wide = (a.outputs + EDGE - 1) / EDGE, high = (n + EDGE - 1) / EDGE;
  u32 warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
  u32 row0 = warp / 4 * 32 + group, output0 = warp % 4 * 16;
  for (u32 task = block; task < wide * high; task += blocks) {
    u32 left = task % wide * EDGE, top = task / wide * EDGE;
    float sums[2][2][4] = {};
    for (u32 start = 0; start < a.inputs; start += DEEP) {
      for (u32 i = threadIdx.x; i < EDGE * DEEP; i += THREADS) {
        u32 row = i / DEEP, k = i % DEEP;
        float x = top + row < n && start + k < a.inputs ? __ldcg(x_row(s, top + row) + start + k) : 0.0f;
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
        for (u32 j = 0; j < 2; j++) {
          u32 w = two_halves(&h.w[output0 + j * 8 + group][k]);
          for (u32 i = 0; i < 2; i++) {
            u32 row = row0 + i * 16;
            multiply_add(sums[i][j], two_halves(&h.high[row][k]), two_halves(&h.high[row + 8][k]), w);
            multiply_add(sums[i][j], two_halves(&h.low[row][k]), two_halves(&h.low[row + 8][k]), w);
          }
        }
      __syncthreads();
    }
    for (u32 i = 0; i < 2; i++)
      for (u32 j = 0; j < 2; j++)
        for (u32 c = 0; c < 4; c++) {
          u32 row = top + row0 + i * 16 + c / 2 * 8, output = left + output0 + j * 8 + pair + c % 2;
          if (row < n && output < a.outputs) finish(s, row, output, sums[i][j][c]);
        }
  }
}
