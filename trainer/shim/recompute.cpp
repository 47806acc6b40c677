// A part of a model that forgets what it computed on the way: the forward pass keeps its input alone, and the backward
// pass computes the part again. Twin of trainer/src/torch/recompute.rs.

#include "border.h"

#include <memory>
#include <mutex>
#include <optional>

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

namespace {

/// The part, on the other side of the border: a new tensor of a tensor, or a message.
using Call = char *(*)(void *part, TensorPtr x, TensorPtr *out);
using Free = void (*)(void *part);

struct Part : torch::CustomClassHolder {
  Part(void *part, Call call, Free free) : part(part), call(call), free(free) {}
  ~Part() override { free(part); }

  at::Tensor operator()(const at::Tensor &x) const {
    at::Tensor input = x;
    TensorPtr out = nullptr;
    if (char *message = call(part, &input, &out)) {
      const std::string text(message);
      ::free(message);
      TORCH_CHECK(false, text);
    }
    const std::unique_ptr<at::Tensor> owned(out);
    return *owned;
  }

  void *part;
  Call call;
  Free free;
};

std::vector<at::Tensor> generators(const at::Device &device) {
  std::vector<at::Tensor> states;
  for (const auto &place : {at::Device(at::kCPU), device}) {
    if (states.empty() || !place.is_cpu()) {
      auto generator = at::globalContext().defaultGenerator(place);
      std::lock_guard<std::mutex> lock(generator.mutex());
      states.push_back(generator.get_state());
    }
  }
  return states;
}

void set_generators(const at::Device &device, const std::vector<at::Tensor> &states) {
  for (size_t i = 0; i < states.size(); i++) {
    auto generator = at::globalContext().defaultGenerator(i == 0 ? at::Device(at::kCPU) : device);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(states[i]);
  }
}

/// What the second computation needs to be the first one again.
struct Surroundings : torch::CustomClassHolder {
  c10::intrusive_ptr<Part> part;
  bool autocast = false;
  at::ScalarType dtype = at::kFloat;
  std::vector<at::Tensor> random; // empty where the part draws nothing
};

/// Mixed precision as it was in the forward pass, for as long as the value lives.
class Autocast {
public:
  Autocast(at::DeviceType device, const Surroundings &s) : device(device), before(at::autocast::is_autocast_enabled(device)) {
    at::autocast::set_autocast_enabled(device, s.autocast);
    if (s.autocast) {
      at::autocast::set_autocast_dtype(device, s.dtype);
    }
  }
  ~Autocast() {
    at::autocast::set_autocast_enabled(device, before);
    if (!before) {
      at::autocast::clear_cache();
    }
  }

private:
  at::DeviceType device;
  bool before;
};

struct Recompute : public Function<Recompute> {
  static Variable forward(AutogradContext *context, const Variable &x, const c10::intrusive_ptr<Part> &part, bool draws) {
    auto around = c10::make_intrusive<Surroundings>();
    around->part = part;
    around->autocast = at::autocast::is_autocast_enabled(x.device().type());
    if (around->autocast) {
      around->dtype = at::autocast::get_autocast_dtype(x.device().type());
    }
    if (draws) {
      around->random = generators(x.device());
    }
    context->save_for_backward({x});
    context->saved_data["around"] = c10::IValue::make_capsule(around);
    return (*part)(x);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    const auto x = context->get_saved_variables()[0].detach().requires_grad_(true);
    const auto around = c10::static_intrusive_pointer_cast<Surroundings>(context->saved_data["around"].toCapsule());
    const auto now = around->random.empty() ? std::vector<at::Tensor>() : generators(x.device());
    at::Tensor y;
    {
      at::AutoGradMode on(true);
      Autocast autocast(x.device().type(), *around);
      if (!now.empty()) {
        set_generators(x.device(), around->random);
      }
      y = (*around->part)(x);
    }
    if (!now.empty()) {
      set_generators(x.device(), now);
    }
    // The parameters' gradients go straight into the parameters.
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), Variable(), Variable()};
  }
};

} // namespace

extern "C" {

/// part(x) as a new tensor, whose gradient computes part(x) again. x must need a gradient, and the part must give the
/// same every time; `draws`: it draws from the random generators of the CPU and of x's device. Takes over `part`: the
/// backward pass may call and free it on another thread.
char *grug_torch_recompute(TensorPtr x, void *part, Call call, Free free, int32_t draws, TensorPtr *out) {
  return guarded([&] {
    const auto owned = c10::make_intrusive<Part>(part, call, free);
    *out = new at::Tensor(Recompute::apply(*x, owned, draws != 0));
  });
}

} // extern "C"
