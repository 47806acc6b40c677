// The sampler, a part of kernels.cu: temperature, top_k, top_p, min_p, draw, as in sampler/; a block
// for each session.

// The first word of Philox 4x32-10, as in rng.rs.
DEVICE u32 philox(u32 c0, u32 c1, u32 key0, u32 key1) {
  u32 c2 = 0, c3 = 0;
  for (u32 round = 0; round < 10; round++) {
    if (round > 0) { key0 += 0x9E3779B9u; key1 += 0xBB67AE85u; }
    u64 p = (u64)0xD2511F53u * c0, q = (u64)0xCD9E8D57u * c2;
    c0 = (u32)(q >> 32) ^ c1 ^ key0;
    c1 = (u32)q;
    c2 = (u32)(p >> 32) ^ c3 ^ key1;
    c3 = (u32)p;
  }
  return c0;
}

DEVICE void sample_step(const Step& s, Shared& sm, u32 block, u32 blocks) {
  Member* member = s.members ? s.members + block : 0;
  if (member ? block >= n_rows(s) || !member->draws : block != 0) return;
  const Args& a = s.a;
  u32 id = threadIdx.x;
  float logit = __ldcg(s.act + a.x + (u64)block * a.x_stride + id);
  sm.work.sample.logits[id] = logit;
  if (id == 0) { sm.work.sample.kept = 256; sm.work.sample.failed = member ? 0 : __ldcg(s.st + STATE_FAILED); }
  __syncthreads();
  if ((__float_as_uint(logit) & 0x7f800000u) == 0x7f800000u) sm.work.sample.failed = 1;
  float largest = block_max(sm, logit);
  const u32* draws = member ? member->options : s.st + STATE_DRAWS;
  const u32* options = draws + STATE_TEMPERATURE - STATE_DRAWS;
  float temperature = __uint_as_float(__ldcg(options)), top_p = __uint_as_float(__ldcg(options + 2)),
        min_p = __uint_as_float(__ldcg(options + 3));
  u32 top_k = __ldcg(options + 1);
  float weight = temperature > 0.0f ? expf((logit - largest) / temperature) : 0.0f;
  sm.work.sample.weights[id] = weight;
  __syncthreads();
  // Its place by falling weight, the lower byte first among equals.
  u32 rank = 0;
  for (u32 i = 0; i < 256; i++) {
    float other = sm.work.sample.weights[i];
    rank += other > weight || (other == weight && i < id) ? 1 : 0;
  }
  if (top_k > 0 && rank >= top_k) weight = 0.0f;
  __syncthreads();
  sm.work.sample.weights[id] = weight;
  sm.work.sample.ranked[rank & 255u] = weight;
  __syncthreads();
  // Sums are made in the order in which the CPU makes them.
  if (id == 0 && top_p > 0.0f && top_p < 1.0f) {
    float enough = 0.0f, sum = 0.0f;
    for (u32 i = 0; i < 256; i++) enough += sm.work.sample.weights[i];
    enough *= top_p;
    u32 n = 0;
    while (n < 256 && sum < enough) sum += sm.work.sample.ranked[n++];
    sm.work.sample.kept = n;
  }
  __syncthreads();
  if (rank >= sm.work.sample.kept || weight < min_p) weight = 0.0f;
  sm.work.sample.weights[id] = weight;
  __syncthreads();
  if (id == 0 && sm.work.sample.failed && !member) s.st[STATE_FAILED] = 1;
  if (id == 0 && !sm.work.sample.failed) {
    u32 byte = 0, low = __ldcg(draws), high = __ldcg(draws + 1);
    if (temperature > 0.0f) {
      u32 word = philox(low, high, __ldcg(draws + 2), __ldcg(draws + 3));
      float all = 0.0f, sum = 0.0f;
      for (u32 i = 0; i < 256; i++) all += sm.work.sample.weights[i];
      float goal = (float)(word >> 8) * (1.0f / 16777216.0f) * all;
      for (u32 i = 0; i < 256; i++) {
        float w = sm.work.sample.weights[i];
        if (w > 0.0f) { sum += w; byte = i; if (sum > goal) break; }
      }
    } else {
      while (byte < 255 && sm.work.sample.logits[byte] != largest) byte++;
    }
    if (member) {
      member->chosen = byte;
    } else {
      u32 n = n_rows(s), base = __ldcg(s.st + STATE_BASE);
      s.bytes[base + n] = byte;
      s.st[STATE_DRAWS] = low + 1;
      s.st[STATE_DRAWS + 1] = high + (low == 0xffffffffu ? 1 : 0);
      s.st[STATE_CHOSEN] = __ldcg(s.st + STATE_CHOSEN) + 1;
      // A causal model goes on behind what it has seen; a window slides by one.
      if (a.causal) s.st[STATE_FIRST] = __ldcg(s.st + STATE_FIRST) + n;
      s.st[STATE_BASE] = base + (a.causal ? n : 1);
    }
  }
  __syncthreads();
}
