// What the trainer needs of libtorch and `tch` has no binding for. Twin of trainer/src/torch/ffi.rs, which declares
// every function below; trainer/src/torch/ wraps them in safe ones.
//
// border.h has the conventions. Only the headers of the operators in use are included; <torch/torch.h> would make this file ten times slower to
// compile.

#include "border.h"

#include <dlfcn.h>

#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

namespace {

std::vector<at::Tensor> list(const TensorPtr *tensors, size_t n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (size_t i = 0; i < n; i++) {
    out.push_back(*tensors[i]);
  }
  return out;
}

at::Device device_of(int32_t cuda_index) {
  return cuda_index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(cuda_index));
}

} // namespace

extern "C" {

void grug_torch_free_message(char *message) { free(message); }

/// Loads libtorch_cuda.so from the folder that libtorch_cpu.so came from, so that its kernels register themselves.
/// `*found`: whether that folder has one. Must come before any other call into libtorch.
char *grug_torch_load_cuda(int32_t *found) {
  *found = 0;
  Dl_info info;
  if (dladdr(reinterpret_cast<void *>(&at::globalContext), &info) == 0 || info.dli_fname == nullptr) {
    return nullptr;
  }
  std::string path(info.dli_fname);
  const size_t slash = path.rfind('/');
  path = (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + "libtorch_cuda.so";
  if (FILE *file = fopen(path.c_str(), "rb")) {
    fclose(file);
  } else {
    return nullptr;
  }
  *found = 1;
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char *why = dlerror();
    return strdup(why == nullptr ? path.c_str() : why);
  }
  return nullptr;
}

/// Mixed precision of the calling thread: dtype 0 = off, 1 = bf16, 2 = f16. Turning it off drops the cached casts.
char *grug_torch_autocast(int32_t cuda, int32_t dtype) {
  return guarded([&] {
    const auto device = cuda ? at::kCUDA : at::kCPU;
    if (dtype != 0) {
      at::autocast::set_autocast_dtype(device, dtype == 1 ? at::kBFloat16 : at::kHalf);
      at::autocast::set_autocast_cache_enabled(true);
    } else {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, dtype != 0);
  });
}

/// One step of Adam (weight decay added to the gradient) or AdamW (decoupled), in place, on n tensors. `step` counts
/// the steps, this one included, in an f32 scalar that all share. `found_inf`, where not NULL, is an f32 scalar: where
/// it is not 0 nothing changes.
char *grug_torch_adam(const TensorPtr *params, const TensorPtr *grads, const TensorPtr *exp_avgs,
                      const TensorPtr *exp_avg_sqs, size_t n, TensorPtr step, int32_t decoupled, double lr,
                      double beta1, double beta2, double weight_decay, double eps, TensorPtr found_inf) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const std::vector<at::Tensor> steps(n, *step);
    const auto stop = found_inf == nullptr ? std::nullopt : std::optional<at::Tensor>(*found_inf);
    auto p = list(params, n), g = list(grads, n), m = list(exp_avgs, n), v = list(exp_avg_sqs, n);
    if (decoupled) {
      at::_fused_adamw_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps, false, false, std::nullopt, stop);
    } else {
      at::_fused_adam_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps, false, false, std::nullopt, stop);
    }
  });
}

/// The Euclidean norm over all tensors together: a new scalar on their device.
char *grug_torch_norm(const TensorPtr *tensors, size_t n, TensorPtr *out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(list(tensors, n), 2);
    *out = new at::Tensor(at::linalg_vector_norm(at::stack(norms)));
  });
}

/// Multiplies all tensors by min(1, max_norm / (norm + 1e-6)), as PyTorch clips, without telling the host.
char *grug_torch_clip(const TensorPtr *tensors, size_t n, TensorPtr norm, double max_norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto factor = (max_norm / (*norm + 1e-6)).clamp_max(1.0);
    at::_foreach_mul_(list(tensors, n), factor);
  });
}

/// tensors *= factor.
char *grug_torch_scale(const TensorPtr *tensors, size_t n, double factor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(list(tensors, n), factor);
  });
}

/// to += from, for every pair.
char *grug_torch_add(const TensorPtr *to, const TensorPtr *from, size_t n) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_add_(list(to, n), list(from, n));
  });
}

/// to += weight · (from - to), for every pair.
char *grug_torch_lerp(const TensorPtr *to, const TensorPtr *from, size_t n, double weight) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(list(to, n), list(from, n), weight);
  });
}

/// grads *= inverse_scale; found_inf becomes 1 where one of them is not finite. Both are f32 scalars on the device.
char *grug_torch_unscale(const TensorPtr *grads, size_t n, TensorPtr found_inf, TensorPtr inverse_scale) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_amp_foreach_non_finite_check_and_unscale_(list(grads, n), *found_inf, *inverse_scale);
  });
}

/// The rule of PyTorch's GradScaler: back off where found_inf is not 0, else grow after `interval` good steps.
char *grug_torch_update_scale(TensorPtr scale, TensorPtr growth_tracker, TensorPtr found_inf, double growth,
                              double backoff, int64_t interval) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_amp_update_scale_(*scale, *growth_tracker, *found_inf, growth, backoff, interval);
  });
}

/// Forgets the gradients, so that the next backward pass writes fresh ones instead of adding.
char *grug_torch_forget_gradients(const TensorPtr *params, size_t n) {
  return guarded([&] {
    for (size_t i = 0; i < n; i++) {
      params[i]->mutable_grad().reset();
    }
  });
}

/// The state of a device's default generator, a new u8 tensor on the CPU. cuda_index -1 = CPU.
char *grug_torch_rng_state(int32_t cuda_index, TensorPtr *out) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(cuda_index));
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new at::Tensor(generator.get_state());
  });
}

char *grug_torch_set_rng_state(int32_t cuda_index, TensorPtr state) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(cuda_index));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

/// Seeds a device's default generator.
char *grug_torch_seed(int32_t cuda_index, uint64_t seed) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(cuda_index));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(seed);
  });
}

/// deterministic: operators without a deterministic form throw. tf32: matrix products on Ampere and later may round
/// their inputs to 10 bits of mantissa. benchmark: cuDNN tries its algorithms.
char *grug_torch_switches(int32_t deterministic, int32_t tf32, int32_t benchmark) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setDeterministicAlgorithms(deterministic != 0, false);
    context.setDeterministicCuDNN(deterministic != 0);
    context.setAllowTF32CuBLAS(tf32 != 0);
    context.setAllowTF32CuDNN(tf32 != 0);
    context.setBenchmarkCuDNN(benchmark != 0 && deterministic == 0);
  });
}

/// Bytes of a GPU's memory that are free.
char *grug_torch_cuda_free_memory(int32_t cuda_index, int64_t *free) {
  return guarded([&] {
    *free = static_cast<int64_t>(at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(cuda_index)).first);
  });
}

/// A copy on a GPU of a tensor on the host, for which the host does not wait: a new tensor.
char *grug_torch_upload(TensorPtr x, int32_t cuda_index, TensorPtr *out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *out = new at::Tensor(x->pin_memory().to(device_of(cuda_index), /*non_blocking=*/true));
  });
}

/// Bytes that tensors occupy on a GPU now and at most since the start.
char *grug_torch_cuda_memory(int32_t cuda_index, int64_t *now, int64_t *peak) {
  return guarded([&] {
    const auto stats = at::accelerator::getDeviceStats(static_cast<c10::DeviceIndex>(cuda_index));
    *now = stats.allocated_bytes[0].current;
    *peak = stats.allocated_bytes[0].peak;
  });
}

} // extern "C"
