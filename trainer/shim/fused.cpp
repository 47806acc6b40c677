// Operators fused for the CPU, with their gradients: what a block does between its matrix products. libtorch runs each
// as half a dozen passes over memory, which at the sizes of small models costs as much as the products.
//
// f32, contiguous tensors; trainer/src/torch/fused.rs asks for nothing else and has the plain operators for the rest.
// Twin of the definitions in trainer/src/model/: the same numbers but for rounding.

#include "border.h"

#include <cmath>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

// One source, a version for each level of vector instructions, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EACH_ISA __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EACH_ISA
#endif

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

namespace {

/// Rows so short that one thread should do many of them.
int64_t grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)); }

// ---- RMSNorm ------------------------------------------------------------------------------------------------------

/// y = x · (mean(x²) + eps)^-½ · weight for rows of `width`; weight may be NULL.
EACH_ISA void rms_rows(const float *x, const float *weight, float *y, int64_t rows, int64_t width, float eps) {
  for (int64_t row = 0; row < rows; row++, x += width, y += width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
      sum += x[i] * x[i];
    }
    const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    if (weight != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < width; i++) {
        y[i] = x[i] * inverse * weight[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; i++) {
        y[i] = x[i] * inverse;
      }
    }
  }
}

/// With n = x · inverse and h = dy · weight: dx = inverse · (h - n · mean(h·n)), dweight += dy · n.
EACH_ISA void rms_rows_backward(const float *x, const float *weight, const float *dy, float *dx, float *dweight,
                                int64_t rows, int64_t width, float eps) {
  for (int64_t row = 0; row < rows; row++, x += width, dy += width, dx += width) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < width; i++) {
      sum += x[i] * x[i];
      dot += x[i] * dy[i] * weight[i];
    }
    const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    const float mean = dot * inverse * inverse / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      dx[i] = inverse * (dy[i] * weight[i] - x[i] * mean);
      dweight[i] += dy[i] * x[i] * inverse;
    }
  }
}

struct RmsNorm : public Function<RmsNorm> {
  static Variable forward(AutogradContext *context, const Variable &x, const Variable &weight, double eps) {
    const int64_t width = x.size(-1), rows = x.numel() / width;
    auto y = at::empty_like(x, at::MemoryFormat::Contiguous);
    const float *in = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
    float *out = y.mutable_data_ptr<float>();
    at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
      rms_rows(in + begin * width, w, out + begin * width, end - begin, width, static_cast<float>(eps));
    });
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const float eps = static_cast<float>(context->saved_data["eps"].toDouble());
    const auto dy = grads[0].contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    auto dx = at::empty_like(x, at::MemoryFormat::Contiguous);
    // One partial sum for each thread, added up in order: the result depends on the number of threads alone.
    auto partial = at::zeros({at::get_num_threads(), width}, x.options());
    const float *in = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
    const float *g = dy.const_data_ptr<float>();
    float *out = dx.mutable_data_ptr<float>(), *dw = partial.mutable_data_ptr<float>();
    at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * width;
      rms_rows_backward(in + at, w, g + at, out + at, dw + at::get_thread_num() * width, end - begin, width, eps);
    });
    return {dx, partial.sum(0), Variable()};
  }
};

// ---- queries, keys and values -------------------------------------------------------------------------------------

/// One head of one position: normalized where `normalize`, then turned where cos is not NULL. cos and sin are those of
/// the position, (width / 2).
EACH_ISA void turn(const float *x, const float *cos, const float *sin, float *y, int64_t width, bool normalize,
                   float eps) {
  float inverse = 1;
  if (normalize) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
      sum += x[i] * x[i];
    }
    inverse = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
  }
  if (cos == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      y[i] = x[i] * inverse;
    }
    return;
  }
  const int64_t half = width / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; i++) {
    const float a = x[i] * inverse, b = x[i + half] * inverse;
    y[i] = a * cos[i] - b * sin[i];
    y[i + half] = a * sin[i] + b * cos[i];
  }
}

/// The gradient of `turn` with respect to x.
EACH_ISA void turn_backward(const float *x, const float *cos, const float *sin, const float *dy, float *dx,
                            int64_t width, bool normalize, float eps) {
  if (cos == nullptr) {
    std::copy(dy, dy + width, dx);
  } else {
    const int64_t half = width / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
      dx[i] = dy[i] * cos[i] + dy[i + half] * sin[i];
      dx[i + half] = dy[i + half] * cos[i] - dy[i] * sin[i];
    }
  }
  if (normalize) {
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < width; i++) {
      sum += x[i] * x[i];
      dot += x[i] * dx[i];
    }
    const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    const float mean = dot * inverse * inverse / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      dx[i] = inverse * (dx[i] - x[i] * mean);
    }
  }
}

/// What splitting the packed projection needs to know.
struct HeadShape {
  int64_t batch, length, heads, kv_heads, width;

  int64_t packed() const { return (heads + 2 * kv_heads) * width; }
};

struct SplitHeads : public Function<SplitHeads> {
  /// packed: (batch, length, (heads + 2·kv_heads)·width); cos and sin: (length, width / 2), or empty. Gives q, k and v,
  /// (batch, heads or kv_heads, length, width).
  static variable_list forward(AutogradContext *context, const Variable &packed, const Variable &cos,
                               const Variable &sin, int64_t heads, int64_t kv_heads, bool normalize, double eps) {
    const HeadShape s{packed.size(0), packed.size(1), heads, kv_heads, packed.size(2) / (heads + 2 * kv_heads)};
    auto q = at::empty({s.batch, heads, s.length, s.width}, packed.options());
    auto k = at::empty({s.batch, kv_heads, s.length, s.width}, packed.options());
    auto v = at::empty({s.batch, kv_heads, s.length, s.width}, packed.options());
    const float *in = packed.const_data_ptr<float>();
    const float *c = cos.numel() > 0 ? cos.const_data_ptr<float>() : nullptr;
    const float *n = sin.numel() > 0 ? sin.const_data_ptr<float>() : nullptr;
    float *qp = q.mutable_data_ptr<float>(), *kp = k.mutable_data_ptr<float>(), *vp = v.mutable_data_ptr<float>();
    at::parallel_for(0, s.batch * s.length, grain(s.packed()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / s.length, t = row % s.length;
        const float *x = in + row * s.packed();
        const float *ct = c == nullptr ? nullptr : c + t * s.width / 2;
        const float *nt = c == nullptr ? nullptr : n + t * s.width / 2;
        for (int64_t h = 0; h < heads; h++, x += s.width) {
          turn(x, ct, nt, qp + ((b * heads + h) * s.length + t) * s.width, s.width, normalize, eps);
        }
        for (int64_t h = 0; h < kv_heads; h++, x += s.width) {
          turn(x, ct, nt, kp + ((b * kv_heads + h) * s.length + t) * s.width, s.width, normalize, eps);
        }
        for (int64_t h = 0; h < kv_heads; h++, x += s.width) {
          std::copy(x, x + s.width, vp + ((b * kv_heads + h) * s.length + t) * s.width);
        }
      }
    });
    context->save_for_backward({packed, cos, sin});
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    context->saved_data["normalize"] = normalize;
    context->saved_data["eps"] = eps;
    return {q, k, v};
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto &packed = saved[0], &cos = saved[1], &sin = saved[2];
    const int64_t heads = context->saved_data["heads"].toInt(), kv_heads = context->saved_data["kv_heads"].toInt();
    const bool normalize = context->saved_data["normalize"].toBool();
    const float eps = static_cast<float>(context->saved_data["eps"].toDouble());
    const HeadShape s{packed.size(0), packed.size(1), heads, kv_heads, packed.size(2) / (heads + 2 * kv_heads)};
    const auto dq = grads[0].contiguous(), dk = grads[1].contiguous(), dv = grads[2].contiguous();
    auto dpacked = at::empty_like(packed, at::MemoryFormat::Contiguous);
    const float *in = packed.const_data_ptr<float>();
    const float *c = cos.numel() > 0 ? cos.const_data_ptr<float>() : nullptr;
    const float *n = sin.numel() > 0 ? sin.const_data_ptr<float>() : nullptr;
    const float *qp = dq.const_data_ptr<float>(), *kp = dk.const_data_ptr<float>(), *vp = dv.const_data_ptr<float>();
    float *out = dpacked.mutable_data_ptr<float>();
    at::parallel_for(0, s.batch * s.length, grain(s.packed()), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / s.length, t = row % s.length;
        const float *x = in + row * s.packed();
        float *dx = out + row * s.packed();
        const float *ct = c == nullptr ? nullptr : c + t * s.width / 2;
        const float *nt = c == nullptr ? nullptr : n + t * s.width / 2;
        for (int64_t h = 0; h < heads; h++, x += s.width, dx += s.width) {
          const float *dy = qp + ((b * heads + h) * s.length + t) * s.width;
          turn_backward(x, ct, nt, dy, dx, s.width, normalize, eps);
        }
        for (int64_t h = 0; h < kv_heads; h++, x += s.width, dx += s.width) {
          const float *dy = kp + ((b * kv_heads + h) * s.length + t) * s.width;
          turn_backward(x, ct, nt, dy, dx, s.width, normalize, eps);
        }
        for (int64_t h = 0; h < kv_heads; h++, dx += s.width) {
          const float *dy = vp + ((b * kv_heads + h) * s.length + t) * s.width;
          std::copy(dy, dy + s.width, dx);
        }
      }
    });
    return {dpacked, Variable(), Variable(), Variable(), Variable(), Variable(), Variable()};
  }
};

// ---- max(x, 0)² ---------------------------------------------------------------------------------------------------

EACH_ISA void relu2_range(const float *x, float *y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const float positive = x[i] > 0 ? x[i] : 0;
    y[i] = positive * positive;
  }
}

EACH_ISA void relu2_range_backward(const float *x, const float *dy, float *dx, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    dx[i] = 2 * (x[i] > 0 ? x[i] : 0) * dy[i];
  }
}

struct Relu2 : public Function<Relu2> {
  static Variable forward(AutogradContext *context, const Variable &x) {
    auto y = at::empty_like(x, at::MemoryFormat::Contiguous);
    const float *in = x.const_data_ptr<float>();
    float *out = y.mutable_data_ptr<float>();
    at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
      relu2_range(in + begin, out + begin, end - begin);
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const auto x = context->get_saved_variables()[0];
    const auto dy = grads[0].contiguous();
    auto dx = at::empty_like(x, at::MemoryFormat::Contiguous);
    const float *in = x.const_data_ptr<float>(), *g = dy.const_data_ptr<float>();
    float *out = dx.mutable_data_ptr<float>();
    at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
      relu2_range_backward(in + begin, g + begin, out + begin, end - begin);
    });
    return {dx};
  }
};

} // namespace

extern "C" {

/// RMSNorm over the last dimension, a new tensor.
char *grug_torch_rms_norm(TensorPtr x, TensorPtr weight, double eps, TensorPtr *out) {
  return guarded([&] { *out = new at::Tensor(RmsNorm::apply(x->contiguous(), weight->contiguous(), eps)); });
}

/// Splits (batch, length, (heads + 2·kv_heads)·width) into queries, keys and values, each (batch, heads or kv_heads,
/// length, width); queries and keys are normalized over their width where `normalize`, then turned by cos and sin,
/// (length, width / 2), where those are not NULL. `out` takes three new tensors.
char *grug_torch_split_heads(TensorPtr packed, TensorPtr cos, TensorPtr sin, int64_t heads, int64_t kv_heads,
                             int32_t normalize, double eps, TensorPtr *out) {
  return guarded([&] {
    // Autograd functions take no undefined tensors; an empty one says that there is no table.
    const auto table = [&](TensorPtr t) { return t == nullptr ? at::empty({0}, packed->options()) : t->contiguous(); };
    const auto parts =
        SplitHeads::apply(packed->contiguous(), table(cos), table(sin), heads, kv_heads, normalize != 0, eps);
    for (size_t i = 0; i < 3; i++) {
      out[i] = new at::Tensor(parts[i]);
    }
  });
}

/// max(x, 0)², a new tensor.
char *grug_torch_relu2(TensorPtr x, TensorPtr *out) {
  return guarded([&] { *out = new at::Tensor(Relu2::apply(x->contiguous())); });
}

} // extern "C"
