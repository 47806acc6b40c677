// libtorch's own profiler (Kineto): what ran when, on the CPU and on GPUs, as a trace for Perfetto and
// chrome://tracing. Twin of trainer/src/torch/profile.rs.

#include "border.h"

#include <memory>
#include <set>
#include <string>

#include <ATen/record_function.h>
#include <torch/csrc/autograd/profiler_kineto.h>

namespace {

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

ProfilerConfig config() {
  const bool shapes = true, memory = true, stack = false, flops = false, modules = false;
  return ProfilerConfig(ProfilerState::KINETO, shapes, memory, stack, flops, modules);
}

std::set<ActivityType> activities(int32_t cuda) {
  return cuda != 0 ? std::set<ActivityType>{ActivityType::CPU, ActivityType::CUDA}
                   : std::set<ActivityType>{ActivityType::CPU};
}

} // namespace

extern "C" {

/// Warms the profiler up: it runs, and keeps nothing.
char *grug_torch_profiler_prepare(int32_t cuda) {
  return guarded([&] { torch::autograd::profiler::prepareProfiler(config(), activities(cuda)); });
}

/// From now on it keeps what this thread and its backward passes do. Comes after grug_torch_profiler_prepare.
char *grug_torch_profiler_start(int32_t cuda) {
  return guarded([&] { torch::autograd::profiler::enableProfiler(config(), activities(cuda)); });
}

/// Ends it and writes what it kept as JSON.
char *grug_torch_profiler_stop(const char *path) {
  return guarded([&] { torch::autograd::profiler::disableProfiler()->save(path); });
}

/// A named span of time in the trace, until grug_torch_span_end.
char *grug_torch_span_begin(const char *name, size_t len, void **out) {
  return guarded([&] {
    auto span = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (span->isActive()) {
      span->before(std::string(name, len));
    }
    *out = span.release();
  });
}

void grug_torch_span_end(void *span) { delete static_cast<at::RecordFunction *>(span); }

} // extern "C"
