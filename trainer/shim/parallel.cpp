// Several processes that train one model: libtorch's c10d for meeting (TCPStore) and for sums on the host (Gloo), NCCL
// for sums on GPUs. Twin of trainer/src/torch/group.rs.
//
// Gradients travel in flat buckets, filled in the order in which the backward pass finishes them, last layers first:
// while the pass goes on, full buckets are on their way. A bucket's sums become the gradients where they lie.

#include "border.h"

#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace {

using std::chrono::milliseconds;
using StorePtr = c10::intrusive_ptr<c10d::Store>;

// ---- NCCL, by its C interface --------------------------------------------------------------------------------------

/// The part of nccl.h in use; its numbers have not changed since NCCL 2.0. Found when the program runs, in libtorch's
/// CUDA part or in the library that this brings, so that one program serves machines with and without GPUs.
struct Nccl {
  struct Id {
    char bytes[128];
  };
  static constexpr int FLOAT32 = 7, UINT8 = 1, SUM = 0, IN_PROGRESS = 7;

  int (*get_id)(Id *);
  int (*init_rank)(void **comm, int size, Id id, int rank);
  int (*all_reduce)(const void *in, void *out, size_t count, int dtype, int op, void *comm, void *stream);
  int (*broadcast)(const void *in, void *out, size_t count, int dtype, int root, void *comm, void *stream);
  int (*async_error)(void *comm, int *error);
  int (*destroy)(void *comm);
  int (*abort)(void *comm);
  const char *(*text)(int);

  Nccl() {
    void *library = dlsym(RTLD_DEFAULT, "ncclAllReduce") != nullptr ? RTLD_DEFAULT : dlopen("libnccl.so.2", RTLD_NOW);
    const auto find = [&](const char *name) {
      void *symbol = dlsym(library, name);
      TORCH_CHECK(symbol != nullptr, "several GPUs need NCCL, and this libtorch comes without ", name);
      return symbol;
    };
    get_id = reinterpret_cast<decltype(get_id)>(find("ncclGetUniqueId"));
    init_rank = reinterpret_cast<decltype(init_rank)>(find("ncclCommInitRank"));
    all_reduce = reinterpret_cast<decltype(all_reduce)>(find("ncclAllReduce"));
    broadcast = reinterpret_cast<decltype(broadcast)>(find("ncclBroadcast"));
    async_error = reinterpret_cast<decltype(async_error)>(find("ncclCommGetAsyncError"));
    destroy = reinterpret_cast<decltype(destroy)>(find("ncclCommDestroy"));
    abort = reinterpret_cast<decltype(abort)>(find("ncclCommAbort"));
    text = reinterpret_cast<decltype(text)>(find("ncclGetErrorString"));
  }

  void check(int status) const { TORCH_CHECK(status == 0, "NCCL: ", text(status)); }
};

// ---- ways for tensors to travel ------------------------------------------------------------------------------------

/// Sums over all ranks of tensors on one device. Every rank must ask for the same things in the same order.
class Wire {
public:
  virtual ~Wire() = default;
  /// Starts to replace a flat tensor by its sum over all ranks.
  virtual void sum(at::Tensor flat) = 0;
  /// Has all sums done before whatever is asked of the device next.
  virtual void wait() = 0;
  /// Replaces a contiguous tensor by rank 0's.
  virtual void broadcast(at::Tensor tensor) = 0;
};

class GlooWire : public Wire {
public:
  explicit GlooWire(c10::intrusive_ptr<c10d::ProcessGroupGloo> group) : group(std::move(group)) {}

  void sum(at::Tensor flat) override {
    std::vector<at::Tensor> tensors{std::move(flat)};
    works.push_back(group->allreduce(tensors, c10d::AllreduceOptions()));
  }

  void wait() override {
    const auto pending = std::move(works);
    works.clear();
    for (const auto &work : pending) {
      work->wait();
    }
  }

  void broadcast(at::Tensor tensor) override {
    std::vector<at::Tensor> tensors{std::move(tensor)};
    group->broadcast(tensors, c10d::BroadcastOptions())->wait();
  }

private:
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
};

/// Sums run on a stream of their own, beside the backward pass.
class NcclWire : public Wire {
public:
  NcclWire(const StorePtr &store, int rank, int size, at::Device device)
      : device(device), streams(device.type()), own(streams.getStreamFromGlobalPool(device, true)),
        reached(device.type()), done(device.type()) {
    c10::DeviceGuard guard(device);
    Nccl::Id id{};
    if (rank == 0) {
      nccl.check(nccl.get_id(&id));
      store->set("nccl", std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
    } else {
      const auto bytes = store->get("nccl");
      TORCH_CHECK(bytes.size() == sizeof id.bytes, "NCCL: rank 0 sent no address");
      std::copy(bytes.begin(), bytes.end(), id.bytes);
    }
    nccl.check(nccl.init_rank(&comm, size, id, rank));
  }

  ~NcclWire() override {
    if (comm != nullptr) {
      int status = 0;
      // After a failure, destroying would wait for ranks that are gone.
      nccl.async_error(comm, &status) == 0 && status == 0 ? nccl.destroy(comm) : nccl.abort(comm);
    }
  }

  void sum(at::Tensor flat) override {
    c10::DeviceGuard guard(device);
    follow();
    nccl.check(nccl.all_reduce(flat.const_data_ptr(), flat.mutable_data_ptr(), flat.numel(), Nccl::FLOAT32, Nccl::SUM,
                               comm, own.native_handle()));
  }

  void wait() override {
    c10::DeviceGuard guard(device);
    check_async();
    done.record(own);
    done.block(streams.getStream(device));
  }

  void broadcast(at::Tensor tensor) override {
    c10::DeviceGuard guard(device);
    follow();
    nccl.check(nccl.broadcast(tensor.const_data_ptr(), tensor.mutable_data_ptr(), tensor.nbytes(), Nccl::UINT8, 0,
                              comm, own.native_handle()));
    wait();
  }

private:
  /// What was asked of the present stream comes before what is asked of ours.
  void follow() {
    reached.record(streams.getStream(device));
    reached.block(own);
  }

  void check_async() {
    int status = 0;
    nccl.check(nccl.async_error(comm, &status));
    TORCH_CHECK(status == 0 || status == Nccl::IN_PROGRESS, "NCCL: ", nccl.text(status));
  }

  Nccl nccl;
  at::Device device;
  c10::impl::VirtualGuardImpl streams;
  c10::Stream own;
  c10::Event reached, done;
  void *comm = nullptr;
};

// ---- gradients -----------------------------------------------------------------------------------------------------

/// Some parameters' gradients side by side.
struct Bucket {
  at::Tensor flat;
  std::vector<at::Tensor> params, views;
  std::vector<bool> filled;
  size_t missing = 0;
};

class Group {
public:
  Group(const StorePtr &store, const std::string &host, int rank, int size, int32_t cuda_index, milliseconds timeout)
      : size(size) {
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    const char *interface = getenv("GLOO_SOCKET_IFNAME"); // as everywhere in PyTorch
    if (interface != nullptr && *interface != '\0') {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    } else if (host == "localhost" || host.rfind("127.", 0) == 0) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    } else {
      options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    }
    host_group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
    if (cuda_index < 0) {
      wire = std::make_unique<GlooWire>(host_group);
    } else {
      wire = std::make_unique<NcclWire>(store, rank, size,
                                        at::Device(at::kCUDA, static_cast<at::DeviceIndex>(cuda_index)));
    }
    flag = at::zeros({1}, at::kDouble);
  }

  ~Group() {
    for (auto &bucket : buckets) {
      for (auto &param : bucket.params) {
        torch::autograd::impl::set_post_acc_grad_hooks(param, nullptr);
      }
    }
  }

  void broadcast(at::Tensor &tensor) {
    at::NoGradGuard no_grad;
    auto whole = tensor.detach().contiguous();
    if (whole.device().is_cpu()) {
      std::vector<at::Tensor> tensors{whole};
      host_group->broadcast(tensors, c10d::BroadcastOptions())->wait();
    } else {
      wire->broadcast(whole);
    }
    if (!whole.is_alias_of(tensor)) {
      tensor.detach().copy_(whole);
    }
  }

  void sum(double *values, size_t n) {
    auto all = at::empty({static_cast<int64_t>(n)}, at::kDouble);
    std::copy(values, values + n, all.mutable_data_ptr<double>());
    std::vector<at::Tensor> tensors{all};
    host_group->allreduce(tensors, c10d::AllreduceOptions())->wait();
    std::copy_n(all.const_data_ptr<double>(), n, values);
  }

  /// Lays the gradients of these parameters out in buckets of at least so many bytes.
  void watch(const TensorPtr *params, size_t n, int64_t bucket_bytes);

  /// Fills a parameter's place in its bucket, and sends what is complete.
  void arrived(size_t bucket, size_t place) {
    if (!expecting) {
      return;
    }
    auto &b = buckets[bucket];
    if (!b.filled[place]) {
      take(b, place);
      send();
    }
  }

  /// The coming backward pass completes the gradients of a step. `raised` is added up over all ranks meanwhile.
  void expect(double raised) {
    TORCH_CHECK(!buckets.empty(), "no parameters are watched");
    flag.mutable_data_ptr<double>()[0] = raised;
    std::vector<at::Tensor> tensors{flag};
    flag_work = host_group->allreduce(tensors, c10d::AllreduceOptions());
    for (auto &bucket : buckets) {
      bucket.filled.assign(bucket.params.size(), false);
      bucket.missing = bucket.params.size();
    }
    next = 0;
    expecting = true;
  }

  double finish() {
    at::NoGradGuard no_grad;
    expecting = false;
    for (auto &bucket : buckets) {
      for (size_t place = 0; place < bucket.params.size(); place++) {
        if (!bucket.filled[place]) {
          take(bucket, place); // took no part in the pass
        }
      }
    }
    send();
    wire->wait();
    flag_work->wait();
    return flag.const_data_ptr<double>()[0];
  }

private:
  void take(Bucket &bucket, size_t place) {
    at::NoGradGuard no_grad;
    auto &grad = bucket.params[place].mutable_grad();
    auto &view = bucket.views[place];
    if (!grad.defined()) {
      view.zero_();
    } else if (!grad.is_same(view)) {
      view.copy_(grad);
    }
    grad = view;
    bucket.filled[place] = true;
    bucket.missing--;
  }

  /// In the order of the buckets, which is the same on every rank.
  void send() {
    at::NoGradGuard no_grad;
    for (; next < buckets.size() && buckets[next].missing == 0; next++) {
      buckets[next].flat.div_(size);
      wire->sum(buckets[next].flat);
    }
  }

  int size;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> host_group;
  std::unique_ptr<Wire> wire;
  std::vector<Bucket> buckets;
  size_t next = 0;
  bool expecting = false;
  at::Tensor flag;
  c10::intrusive_ptr<c10d::Work> flag_work;
};

/// Called by autograd when a parameter's gradient is whole.
struct Arrival : public torch::autograd::PostAccumulateGradHook {
  Arrival(Group *group, size_t bucket, size_t place) : group(group), bucket(bucket), place(place) {}
  void operator()(const torch::autograd::Variable &) override { group->arrived(bucket, place); }

  Group *group;
  size_t bucket, place;
};

void Group::watch(const TensorPtr *params, size_t n, int64_t bucket_bytes) {
  TORCH_CHECK(buckets.empty(), "parameters are watched already");
  int64_t bytes = 0;
  for (size_t i = n; i-- > 0;) {
    const auto &param = *params[i];
    TORCH_CHECK(param.scalar_type() == at::kFloat, "parameters are f32");
    if (buckets.empty() || bytes >= bucket_bytes) {
      buckets.emplace_back();
      bytes = 0;
    }
    buckets.back().params.push_back(param);
    bytes += static_cast<int64_t>(param.nbytes());
  }
  for (size_t b = 0; b < buckets.size(); b++) {
    auto &bucket = buckets[b];
    int64_t count = 0, at = 0;
    for (const auto &param : bucket.params) {
      count += param.numel();
    }
    bucket.flat = at::zeros({count}, bucket.params[0].options().requires_grad(false));
    for (size_t place = 0; place < bucket.params.size(); place++) {
      const auto &param = bucket.params[place];
      bucket.views.push_back(bucket.flat.narrow(0, at, param.numel()).view(param.sizes()));
      at += param.numel();
      torch::autograd::impl::set_post_acc_grad_hooks(param, std::make_unique<Arrival>(this, b, place));
    }
  }
}

std::string text(const char *bytes, size_t n) { return std::string(bytes, n); }

} // namespace

extern "C" {

/// A place to meet, at `host`:`port`; `server`: this process keeps it. `prefix` comes before every key. Waits for the
/// server, and fails after the timeout.
char *grug_torch_store_new(const char *host, uint16_t port, int32_t server, const char *prefix, int64_t timeout_ms,
                           void **out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = server != 0;
    options.waitWorkers = false;
    options.multiTenant = true;
    options.timeout = milliseconds(timeout_ms);
    StorePtr store = c10::make_intrusive<c10d::TCPStore>(host, options);
    if (*prefix != '\0') {
      store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
    }
    *out = new StorePtr(store);
  });
}

void grug_torch_store_free(void *store) { delete static_cast<StorePtr *>(store); }

char *grug_torch_store_set(void *store, const char *key, size_t key_len, const uint8_t *value, size_t n) {
  return guarded(
      [&] { (*static_cast<StorePtr *>(store))->set(text(key, key_len), std::vector<uint8_t>(value, value + n)); });
}

/// Waits for the key. `*out` is from malloc, to be freed by grug_torch_free_message.
char *grug_torch_store_get(void *store, const char *key, size_t key_len, uint8_t **out, size_t *n) {
  return guarded([&] {
    const auto value = (*static_cast<StorePtr *>(store))->get(text(key, key_len));
    *n = value.size();
    *out = static_cast<uint8_t *>(malloc(value.size() + 1));
    TORCH_CHECK(*out != nullptr, "out of memory");
    std::copy(value.begin(), value.end(), *out);
  });
}

/// Whether the key is there.
char *grug_torch_store_check(void *store, const char *key, size_t key_len, int32_t *found) {
  return guarded([&] { *found = (*static_cast<StorePtr *>(store))->check({text(key, key_len)}) ? 1 : 0; });
}

/// Joins rank `rank` of `size`; every rank must. cuda_index -1: tensors travel by Gloo, else by NCCL between GPUs.
char *grug_torch_group_new(void *store, const char *host, int32_t rank, int32_t size, int32_t cuda_index,
                           int64_t timeout_ms, void **out) {
  return guarded([&] {
    *out = new Group(*static_cast<StorePtr *>(store), host, rank, size, cuda_index, milliseconds(timeout_ms));
  });
}

void grug_torch_group_free(void *group) { delete static_cast<Group *>(group); }

/// Replaces tensors by rank 0's.
char *grug_torch_group_broadcast(void *group, const TensorPtr *tensors, size_t n) {
  return guarded([&] {
    for (size_t i = 0; i < n; i++) {
      static_cast<Group *>(group)->broadcast(*tensors[i]);
    }
  });
}

/// Replaces numbers on the host by their sums over all ranks.
char *grug_torch_group_sum(void *group, double *values, size_t n) {
  return guarded([&] { static_cast<Group *>(group)->sum(values, n); });
}

/// From now on, the group averages the gradients of these f32 parameters. Once.
char *grug_torch_group_watch(void *group, const TensorPtr *params, size_t n, int64_t bucket_bytes) {
  return guarded([&] { static_cast<Group *>(group)->watch(params, n, bucket_bytes); });
}

/// Comes before the backward pass that completes a step's gradients.
char *grug_torch_group_expect(void *group, double raised) {
  return guarded([&] { static_cast<Group *>(group)->expect(raised); });
}

/// Comes after it: the gradients are the means over all ranks. `*raised`: the sum of what the ranks gave to expect.
char *grug_torch_group_finish(void *group, double *raised) {
  return guarded([&] { *raised = static_cast<Group *>(group)->finish(); });
}

/// Ends the process as it is. What waits for ranks that are gone cannot be ended in another way.
void grug_torch_leave(int32_t status) { _exit(status); }

} // extern "C"
