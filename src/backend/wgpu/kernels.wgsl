// The kernels of the wgpu engine. What comes before this text: `struct Args` and its codes (backend/gpu/args.rs),
// HEAD_DIM (the longest attention head), WEIGHT (how `linear` and `matmul` find their weights stored), and the
// layout of the state: STATE_DIMS, STATE_BYTES and the words of its header.
//
// Every kernel is one step of a plan (backend/gpu/plan.rs). Rows of activations are f32; weights are rows of whole
// 16-byte vectors.

@group(0) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> consts: array<f32>;
@group(0) @binding(2) var<storage, read_write> act: array<f32>;
@group(0) @binding(3) var<storage, read_write> kv: array<f32>;
@group(0) @binding(4) var<storage, read_write> st: array<u32>;
@group(0) @binding(5) var<uniform> a: Args;

const NONE: u32 = 0xffffffffu;
const NORM_EPS: f32 = 1e-5;

fn n_rows() -> u32 { return st[STATE_DIMS + a.rows]; }
// The position of the first row, in the stream that the step belongs to.
fn first() -> u32 { return st[STATE_FIRST] / max(a.divide, 1u); }
fn x_row(i: u32) -> u32 { return a.x + (i + a.x_shift * first()) * a.x_stride; }
fn y_row(i: u32) -> u32 { return a.y + (i + a.y_shift * first()) * a.y_stride; }

// ---- numbers ------------------------------------------------------------------------------------------------------

// erf: its Taylor series near 0, and Abramowitz & Stegun 7.1.26 beyond. Within 2e-7.
fn erf(x: f32) -> f32 {
  let t = abs(x);
  let s = x * x;
  if (t < 1.0) {
    var sum = 1.0 / 685440.0;                            // 1/(8!·17)
    sum = -1.0 / 75600.0 + s * sum;                      // 1/(7!·15)
    sum = 1.0 / 9360.0 + s * sum;                        // 1/(6!·13)
    sum = -1.0 / 1320.0 + s * sum;                       // 1/(5!·11)
    sum = 1.0 / 216.0 + s * sum;                         // 1/(4!·9)
    sum = -1.0 / 42.0 + s * sum;                         // 1/(3!·7)
    sum = 0.1 + s * sum;                                 // 1/(2!·5)
    sum = -1.0 / 3.0 + s * sum;
    return 1.1283791670955126 * (x + x * s * sum);
  }
  let k = 1.0 / (1.0 + 0.3275911 * t);
  let p = k * (0.254829592 + k * (-0.284496736 + k * (1.421413741 + k * (-1.453152027 + k * 1.061405429))));
  return sign(x) * (1.0 - p * exp(-min(s, 80.0)));
}
fn gelu(x: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * 0.7071067811865476)); }
// Beyond ±20 it is x or 0; there exp would overflow on some devices.
fn silu(x: f32) -> f32 { return x / (1.0 + exp(-clamp(x, -80.0, 80.0))); }
fn softcap(c: f32, x: f32) -> f32 { return c * tanh(clamp(x / c, -15.0, 15.0)); }

fn epilogue(v: f32) -> f32 {
  switch a.epilogue {
    case EPILOGUE_GELU: { return gelu(v); }
    case EPILOGUE_RELU: { return max(v, 0.0); }
    case EPILOGUE_RELU2: { let p = max(v, 0.0); return p * p; }
    case EPILOGUE_SOFTCAP: { return softcap(bitcast<f32>(a.scalar), v); }
    default: { return v; }
  }
}

// What is added to number c of the row at this position.
fn position(row: u32, c: u32) -> f32 {
  if (a.positions == NONE) { return 0.0; }
  return consts[a.positions + (first() + row) * a.outputs + c];
}

// The bytes of a word, with their signs.
fn signed_bytes(word: u32) -> vec4<f32> {
  return vec4<f32>((vec4<i32>(bitcast<i32>(word)) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}
// Number c of a vector of weights.
fn pick(v: vec4<u32>, kind: u32, c: u32) -> f32 {
  if (kind == WEIGHT_F32) { return bitcast<f32>(v[c]); }
  if (kind == WEIGHT_INT8) { return signed_bytes(v[c / 4u])[c % 4u]; }
  let word = v[c / 2u];
  if (kind == WEIGHT_F16) { let pair = unpack2x16float(word); return select(pair.x, pair.y, (c & 1u) == 1u); }
  return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (c & 1u) == 1u));
}
fn per_vector(kind: u32) -> u32 { return select(select(8u, 16u, kind == WEIGHT_INT8), 4u, kind == WEIGHT_F32); }

// ---- work that a workgroup shares ---------------------------------------------------------------------------------

const WG: u32 = 128u;
var<workgroup> red: array<f32, 256>;

fn wg_sum(tid: u32, v: f32) -> f32 {
  red[tid] = v;
  workgroupBarrier();
  for (var s = WG / 2u; s > 0u; s = s / 2u) {
    if (tid < s) { red[tid] += red[tid + s]; }
    workgroupBarrier();
  }
  let r = red[0];
  workgroupBarrier();
  return r;
}
fn wg_max(tid: u32, v: f32) -> f32 {
  red[tid] = v;
  workgroupBarrier();
  for (var s = WG / 2u; s > 0u; s = s / 2u) {
    if (tid < s) { red[tid] = max(red[tid], red[tid + s]); }
    workgroupBarrier();
  }
  let r = red[0];
  workgroupBarrier();
  return r;
}

// What a prologue needs to know of a whole row: (shift, scale).
fn row_statistics(tid: u32, x: u32) -> vec2<f32> {
  if (a.prologue == PROLOGUE_NORM) {
    var mean = 0.0;
    if (a.rms == 0u) {
      var sum = 0.0;
      for (var i = tid; i < a.inputs; i += WG) { sum += act[x + i]; }
      mean = wg_sum(tid, sum) / f32(a.inputs);
    }
    var squares = 0.0;
    for (var i = tid; i < a.inputs; i += WG) { let d = act[x + i] - mean; squares += d * d; }
    return vec2(mean, 1.0 / sqrt(wg_sum(tid, squares) / f32(a.inputs) + NORM_EPS));
  }
  if (a.prologue == PROLOGUE_CURVED) {
    var squares = 0.0;
    for (var i = tid; i < a.inputs; i += WG) { let h = act[x + i]; squares += h * h; }
    return vec2(0.0, 1.0 + bitcast<f32>(a.scalar) * 0.5 * wg_sum(tid, squares));
  }
  return vec2(0.0, 1.0);
}
// Number i of a row after the prologue.
fn prologue(x: u32, i: u32, statistics: vec2<f32>) -> f32 {
  let v = act[x + i];
  switch a.prologue {
    case PROLOGUE_NORM: {
      var n = (v - statistics.x) * statistics.y * consts[a.gain + i];
      if (a.gain_bias != NONE) { n += consts[a.gain_bias + i]; }
      return n;
    }
    case PROLOGUE_SWIGLU: { return silu(v) * act[x + a.inputs + i]; }
    case PROLOGUE_CURVED: { return gelu(v / statistics.y); }
    default: { return v; }
  }
}

// ---- embed: the rows of the tables; (numbers / 64, rows) workgroups ------------------------------------------------

@compute @workgroup_size(64)
fn embed(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let row = wg.y;
  let c = wg.x * 64u + tid;
  if (c >= a.outputs || row >= n_rows()) { return; }
  let byte = st[STATE_BYTES + st[STATE_BASE] + row];
  let n = per_vector(a.w_kind);
  let v = pick(matrix[byte * a.w_stride + c / n], a.w_kind, c % n);
  act[y_row(row) + c] = v + position(row, c);
}

// ---- pad_sides: the rows beyond a convolution's input; (numbers / 64, 2 · pad) workgroups --------------------------

@compute @workgroup_size(64)
fn pad_sides(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let c = wg.x * 64u + tid;
  if (c >= a.inputs) { return; }
  let n = n_rows();
  let distance = wg.y % a.pad + 1u;
  let left = wg.y < a.pad;
  var source = 0u;
  switch a.padding {
    case PADDING_REFLECT: { source = select(n - 1u - distance, distance, left); }
    case PADDING_REPLICATE: { source = select(n - 1u, 0u, left); }
    case PADDING_CIRCULAR: { source = select(distance - 1u, n - distance, left); }
    default: {}
  }
  var v = 0.0;
  if (a.padding != PADDING_ZEROS) { v = act[a.x + source * a.x_stride + c]; }
  // Rows before the first lie before a.x.
  let to = select(a.x + (n - 1u + distance) * a.x_stride, a.x - distance * a.x_stride, left);
  act[to + c] = v;
}

// ---- linear: a matrix times rows, one by one; (outputs / ROWS, rows) workgroups ------------------------------------------------

const ROWS: u32 = 8u;
const LANES: u32 = 16u;  // that share an output
const TILE: u32 = 2048u; // numbers of the input at a time
var<workgroup> xs: array<f32, TILE>;

fn dot_vector(w: vec4<u32>, k: u32) -> f32 {
  if (WEIGHT == WEIGHT_F32) {
    let v = bitcast<vec4<f32>>(w);
    return v.x * xs[k] + v.y * xs[k + 1u] + v.z * xs[k + 2u] + v.w * xs[k + 3u];
  }
  var sum = 0.0;
  if (WEIGHT == WEIGHT_INT8) {
    for (var i = 0u; i < 4u; i++) {
      let at = k + 4u * i;
      sum += dot(signed_bytes(w[i]), vec4(xs[at], xs[at + 1u], xs[at + 2u], xs[at + 3u]));
    }
    return sum;
  }
  for (var i = 0u; i < 4u; i++) {
    let word = w[i];
    var pair = unpack2x16float(word);
    if (WEIGHT == WEIGHT_BF16) { pair = vec2(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u)); }
    sum += pair.x * xs[k + 2u * i] + pair.y * xs[k + 2u * i + 1u];
  }
  return sum;
}

@compute @workgroup_size(128)
fn linear(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let x = x_row(wg.y);
  let per = per_vector(WEIGHT);
  let lane = tid % LANES;
  let output = wg.x * ROWS + tid / LANES;
  let statistics = row_statistics(tid, x);
  var sum = 0.0;
  for (var start = 0u; start < a.w_stride * per; start += TILE) {
    for (var i = tid; i < TILE; i += WG) {
      if (start + i < a.inputs) { xs[i] = prologue(x, start + i, statistics); } else { xs[i] = 0.0; }
    }
    workgroupBarrier();
    if (output < a.outputs) {
      let end = min(TILE / per, a.w_stride - start / per);
      let row = output * a.w_stride + start / per;
      for (var i = lane; i < end; i += LANES) { sum += dot_vector(matrix[row + i], i * per); }
    }
    workgroupBarrier();
  }
  red[tid] = sum;
  workgroupBarrier();
  if (lane != 0u || output >= a.outputs) { return; }
  for (var i = 1u; i < LANES; i++) { sum += red[tid + i]; }
  finish(wg.y, output, sum);
}

fn finish(row: u32, output: u32, sum: f32) {
  var v = sum;
  if (a.scales != NONE) { v *= consts[a.scales + output]; }
  if (a.bias != NONE) { v += consts[a.bias + output]; }
  v = epilogue(v) + position(row, output);
  let at = y_row(row) + output;
  if (a.add == 1u) { v += act[at]; }
  act[at] = v;
}

// ---- matmul: a matrix times many rows; (outputs / 64, rows / 64) workgroups of 16 × 16, 4 × 4 results each ---------

const DEPTH: u32 = 16u; // inputs at a time
var<workgroup> mx: array<f32, 1040>; // (DEPTH, 65): rows of the input
var<workgroup> mw: array<f32, 1040>; // (DEPTH, 65): outputs

@compute @workgroup_size(256)
fn matmul(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let n = n_rows();
  let per = per_vector(WEIGHT);
  let tx = tid % 16u;
  let ty = tid / 16u;
  var sums: array<vec4<f32>, 4>;
  for (var i = 0u; i < 4u; i++) { sums[i] = vec4(0.0); }
  for (var start = 0u; start < a.inputs; start += DEPTH) {
    for (var i = tid; i < 64u * DEPTH; i += 256u) {
      let row = wg.y * 64u + i / DEPTH;
      let k = start + i % DEPTH;
      var v = 0.0;
      if (row < n && k < a.inputs) { v = act[x_row(row) + k]; }
      mx[(i % DEPTH) * 65u + i / DEPTH] = v;
    }
    let vectors = DEPTH / per; // in a row of the tile
    for (var i = tid; i < 64u * vectors; i += 256u) {
      let output = wg.x * 64u + i / vectors;
      let at = start / per + i % vectors;
      var w = vec4(0u);
      if (output < a.outputs && at < a.w_stride) { w = matrix[output * a.w_stride + at]; }
      for (var c = 0u; c < per; c++) { mw[(i % vectors * per + c) * 65u + i / vectors] = pick(w, WEIGHT, c); }
    }
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let at = k * 65u + tx * 4u;
      let w = vec4(mw[at], mw[at + 1u], mw[at + 2u], mw[at + 3u]);
      for (var i = 0u; i < 4u; i++) { sums[i] += mx[k * 65u + ty * 4u + i] * w; }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u; j++) {
      let row = wg.y * 64u + ty * 4u + i;
      let output = wg.x * 64u + tx * 4u + j;
      if (row < n && output < a.outputs) { finish(row, output, sums[i][j]); }
    }
  }
}

// ---- norm and activate: prologues on many rows; one workgroup a row ------------------------------------------------

@compute @workgroup_size(128)
fn norm(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let x = x_row(wg.x);
  let y = y_row(wg.x);
  let statistics = row_statistics(tid, x);
  for (var i = tid; i < a.inputs; i += WG) { act[y + i] = prologue(x, i, statistics) + position(wg.x, i); }
}
@compute @workgroup_size(128)
fn activate(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let x = x_row(wg.x);
  let y = y_row(wg.x);
  let statistics = row_statistics(tid, x);
  for (var i = tid; i < a.inputs; i += WG) { act[y + i] = prologue(x, i, statistics); }
}

// ---- store_kv: queries of a row into place, keys and values into the cache; (heads + kv_heads, rows) workgroups ----
// The cache holds keys as (kv_heads, head_dim, capacity), so that threads read neighbours, and after them values as
// (kv_heads, capacity, head_dim).

// A query at 0 and a key at HEAD_DIM, ready; and a head before it is.
var<workgroup> heads: array<f32, 2u * HEAD_DIM>;
var<workgroup> raw: array<f32, HEAD_DIM>;

// The head that stands at x, normalized and turned to its place, into `heads`.
fn turn_head(tid: u32, x: u32, place: u32, out: u32) {
  let dim = a.head_dim;
  var scale = 1.0;
  if (a.qk_norm == 1u) {
    var squares = 0.0;
    for (var i = tid; i < dim; i += WG) { let v = act[x + i]; squares += v * v; }
    scale = 1.0 / sqrt(wg_sum(tid, squares) / f32(dim) + NORM_EPS);
  }
  for (var i = tid; i < dim; i += WG) { raw[i] = act[x + i] * scale; }
  workgroupBarrier();
  let half = dim / 2u;
  for (var i = tid; i < dim; i += WG) {
    var v = raw[i];
    if (a.cos != NONE) {
      let angle = place * half + i % half;
      let c = consts[a.cos + angle];
      let s = consts[a.sin + angle];
      if (i < half) { v = v * c - raw[i + half] * s; } else { v = raw[i - half] * s + v * c; }
    }
    heads[out + i] = v;
  }
  workgroupBarrier();
}
// Keeps the key in `heads`, and the value that stands at x, of a head.
fn keep(tid: u32, x: u32, head: u32, place: u32) {
  let dim = a.head_dim;
  for (var i = tid; i < dim; i += WG) {
    kv[(head * dim + i) * a.capacity + place] = heads[HEAD_DIM + i];
    kv[((a.kv_heads + head) * a.capacity + place) * dim + i] = act[x + i];
  }
}

@compute @workgroup_size(128)
fn store_kv(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let dim = a.head_dim;
  let head = wg.x;
  let x = x_row(wg.y);
  let place = first() + wg.y;
  turn_head(tid, x + head * dim, place, HEAD_DIM);
  if (head < a.heads) {
    for (var i = tid; i < dim; i += WG) { act[x + head * dim + i] = heads[HEAD_DIM + i]; }
  } else {
    keep(tid, x + (head + a.kv_heads) * dim, head - a.heads, place);
  }
}

// ---- attention: a head of a row over the cache; (heads, rows - skip) workgroups ------------------------------------
// In blocks of WG positions, with the running maximum and sum of the softmax. With `store` it does the work of
// store_kv for its single row on the way.

const MIXED: u32 = max(WG, HEAD_DIM);
var<workgroup> weights: array<f32, WG>;
var<workgroup> mixed: array<f32, MIXED>;
var<workgroup> visible: vec2<u32>;

@compute @workgroup_size(128)
fn attention(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let dim = a.head_dim;
  let head = wg.x;
  let group = a.heads / a.kv_heads;
  let kv_head = head / group;
  let keys = kv_head * dim * a.capacity;
  let values = (a.kv_heads + kv_head) * dim * a.capacity;
  let row = st[STATE_DIMS + a.skip] + wg.y;
  let place = first() + row;
  if (tid == 0u) {
    let end = select(n_rows(), place + 1u, a.causal == 1u);
    visible = vec2(select(0u, end - min(end, a.window), a.window > 0u), end);
  }
  let range = workgroupUniformLoad(&visible);
  let x = x_row(row);
  let own_value = x + (a.heads + a.kv_heads + kv_head) * dim;
  if (a.store == 1u) {
    turn_head(tid, x + head * dim, place, 0u);
    turn_head(tid, x + (a.heads + kv_head) * dim, place, HEAD_DIM);
    if (head % group == 0u) { keep(tid, own_value, kv_head, place); }
  } else {
    for (var i = tid; i < dim; i += WG) { heads[i] = act[x + head * dim + i]; }
  }
  for (var i = tid; i < MIXED; i += WG) { mixed[i] = 0.0; }
  workgroupBarrier();
  // Threads share the positions of a block by parts, each of which adds up all the numbers of a head.
  let parts = max(WG / dim, 1u);
  let part = tid / dim;
  let scale = 1.0 / sqrt(f32(dim));
  var largest = -3.0e38;
  var total = 0.0;
  for (var start = range.x; start < range.y; start += WG) {
    let at = start + tid;
    var score = -3.0e38;
    if (at < range.y) {
      var dot = 0.0;
      if (a.store == 1u && at == place) {
        for (var i = 0u; i < dim; i++) { dot += heads[i] * heads[HEAD_DIM + i]; }
      } else {
        for (var i = 0u; i < dim; i++) { dot += heads[i] * kv[keys + i * a.capacity + at]; }
      }
      score = dot * scale;
    }
    let now = max(largest, wg_max(tid, score));
    var weight = 0.0;
    if (at < range.y) { weight = exp(score - now); }
    weights[tid] = weight;
    let fade = exp(largest - now);
    total = total * fade + wg_sum(tid, weight);
    largest = now;
    let n = min(WG, range.y - start);
    // The last one may not be in the cache yet.
    let stored = select(n, n - 1u, a.store == 1u && range.y - start <= WG);
    for (var i = tid; i < parts * dim; i += WG) {
      let c = i % dim;
      var sum = mixed[i] * fade;
      for (var j = part; j < stored; j += parts) { sum += weights[j] * kv[values + (start + j) * dim + c]; }
      if (stored < n && stored % parts == part) { sum += weights[stored] * act[own_value + c]; }
      mixed[i] = sum;
    }
    workgroupBarrier();
  }
  let y = y_row(wg.y) + head * dim;
  for (var i = tid; i < dim; i += WG) {
    var sum = 0.0;
    for (var p = 0u; p < parts; p++) { sum += mixed[p * dim + i]; }
    act[y + i] = sum / total;
  }
}

// ---- copy_rows: (numbers / 64, rows) workgroups ----------------------------------------------------------------------

@compute @workgroup_size(64)
fn copy_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let c = wg.x * 64u + tid;
  if (c >= a.outputs || wg.y >= n_rows()) { return; }
  act[y_row(wg.y) + c] = act[x_row(st[STATE_DIMS + a.skip] + wg.y) + c];
}

// ---- join: the states of both streams of a causal model; (numbers / 64, rows) workgroups ---------------------------

@compute @workgroup_size(64)
fn join(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
  let c = wg.x * 64u + tid;
  if (c >= a.outputs || wg.y >= n_rows()) { return; }
  // A byte uses the last coarse state whose bytes were all there.
  let complete = (st[STATE_FIRST] + st[STATE_DIMS + a.skip] + wg.y + 1u) / a.divide;
  var v = 0.0;
  if (c < a.inputs) {
    v = act[x_row(wg.y) + c];
  } else if (complete == 0u) {
    v = consts[a.start + c - a.inputs];
  } else {
    v = act[a.coarse + (complete - 1u) * (a.outputs - a.inputs) + c - a.inputs];
  }
  act[y_row(wg.y) + c] = v;
}

// ---- sample: temperature → top_k → top_p → min_p → draw, as in sampler/; one workgroup -----------------------------

// (high, low) words of a product.
fn product(x: u32, y: u32) -> vec2<u32> {
  let x0 = x & 0xffffu;
  let x1 = x >> 16u;
  let y0 = y & 0xffffu;
  let y1 = y >> 16u;
  let low = x0 * y0;
  let middle = x1 * y0 + (low >> 16u);
  let carry = x0 * y1 + (middle & 0xffffu);
  return vec2(x1 * y1 + (middle >> 16u) + (carry >> 16u), x * y);
}
// The first word of Philox 4x32-10, as in rng.rs.
fn philox(counter: vec4<u32>, seed: vec2<u32>) -> u32 {
  var c = counter;
  var key = seed;
  for (var round = 0u; round < 10u; round++) {
    if (round > 0u) { key += vec2(0x9E3779B9u, 0xBB67AE85u); }
    let p = product(0xD2511F53u, c.x);
    let q = product(0xCD9E8D57u, c.z);
    c = vec4(q.x ^ c.y ^ key.x, q.y, p.x ^ c.w ^ key.y, p.y);
  }
  return c.x;
}

var<workgroup> logits: array<f32, 256>;
var<workgroup> ranked: array<f32, 256>;
var<workgroup> kept: u32;      // how many of the ranked stay
var<workgroup> failed: atomic<u32>;

@compute @workgroup_size(256)
fn sample(@builtin(local_invocation_index) tid: u32) {
  let logit = act[a.x + tid];
  logits[tid] = logit;
  if (tid == 0u) {
    kept = 256u;
    atomicStore(&failed, select(0u, 1u, st[STATE_FAILED] != 0u));
  }
  workgroupBarrier();
  // By its bits: a compiler may assume that no number is infinite or none at all.
  if ((bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u) { atomicStore(&failed, 1u); }
  red[tid] = logit;
  workgroupBarrier();
  for (var s = 128u; s > 0u; s = s / 2u) {
    if (tid < s) { red[tid] = max(red[tid], red[tid + s]); }
    workgroupBarrier();
  }
  let largest = red[0];
  workgroupBarrier();
  let temperature = bitcast<f32>(st[STATE_TEMPERATURE]);
  let top_k = st[STATE_TEMPERATURE + 1u];
  let top_p = bitcast<f32>(st[STATE_TEMPERATURE + 2u]);
  let min_p = bitcast<f32>(st[STATE_TEMPERATURE + 3u]);
  var weight = 0.0;
  if (temperature > 0.0) { weight = exp((logit - largest) / temperature); }
  red[tid] = weight;
  workgroupBarrier();
  // Its place by falling weight, the lower byte first among equals.
  var rank = 0u;
  for (var i = 0u; i < 256u; i++) { if (red[i] > weight || (red[i] == weight && i < tid)) { rank += 1u; } }
  if (top_k > 0u && rank >= top_k) { weight = 0.0; }
  workgroupBarrier();
  red[tid] = weight;
  ranked[rank] = weight;
  workgroupBarrier();
  // Sums are made in the order in which the CPU makes them.
  if (tid == 0u && top_p > 0.0 && top_p < 1.0) {
    var enough = 0.0;
    for (var i = 0u; i < 256u; i++) { enough += red[i]; }
    enough *= top_p;
    var sum = 0.0;
    var n = 0u;
    while (n < 256u && sum < enough) { sum += ranked[n]; n += 1u; }
    kept = n;
  }
  workgroupBarrier();
  if (rank >= kept || weight < min_p) { weight = 0.0; }
  workgroupBarrier();
  red[tid] = weight;
  workgroupBarrier();
  if (tid != 0u) { return; }
  if (atomicLoad(&failed) != 0u) {
    st[STATE_FAILED] = 1u;
    return;
  }
  var byte = 0u;
  if (temperature > 0.0) {
    let word = philox(vec4(st[STATE_DRAWS], st[STATE_DRAWS + 1u], 0u, 0u), vec2(st[STATE_DRAWS + 2u], st[STATE_DRAWS + 3u]));
    var all = 0.0;
    for (var i = 0u; i < 256u; i++) { all += red[i]; }
    let goal = f32(word >> 8u) * (1.0 / 16777216.0) * all;
    var sum = 0.0;
    for (var i = 0u; i < 256u; i++) {
      if (red[i] > 0.0) {
        sum += red[i];
        byte = i;
        if (sum > goal) { break; }
      }
    }
  } else {
    for (var i = 255u; i > 0u; i--) { if (logits[i] == largest) { byte = i; } }
    if (logits[0] == largest) { byte = 0u; }
  }
  let n = n_rows();
  let base = st[STATE_BASE];
  st[STATE_BYTES + base + n] = byte;
  st[STATE_DRAWS] += 1u;
  if (st[STATE_DRAWS] == 0u) { st[STATE_DRAWS + 1u] += 1u; }
  st[STATE_CHOSEN] += 1u;
  // A causal model goes on behind what it has seen; a window slides by one.
  if (a.causal == 1u) { st[STATE_FIRST] += n; }
  st[STATE_BASE] = base + select(1u, n, a.causal == 1u);
}
