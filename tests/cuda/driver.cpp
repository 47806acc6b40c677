// A libcuda for tests: the entry points that the engine uses, on the CPU, with the kernels of kernels.cu in it. Memory is
// filled with NaN when it is handed out; every size and range is checked, and that the context is current where it must be,
// and only then; FAIL_CALL=N makes call number N, and all after
// it, fail as a lost device does; FAKE_MEMORY is how many bytes there are; FAKE_NO_COOPERATION takes
// cooperative launches away.
#include "kernels.cu"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

// ---- fibers -----------------------------------------------------------------------------------------------------------

namespace shim {
Index thread, block, grid;
struct Fiber { void* stack_pointer; u32 thread, block; bool done; };
struct Group { u32 arrived, round; };
struct Registers { u32 a[2], b; };
struct BlockState {
  Group all;
  std::vector<Group> warps;
  std::vector<u32> given[2];
  std::vector<Registers> registers[2];
  std::vector<u64> memory;
};
static std::vector<Fiber> fibers;
static std::vector<BlockState> blocks;  // of those that run now
static size_t current, alive;
static u32 first_block;
static void* host;
static const std::function<void()>* body;

extern "C" void shim_switch(void** save, void* to);
asm(".text\n.globl shim_switch\nshim_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

static BlockState& state() { return blocks[fibers[current].block - first_block]; }
static void resume(void** save) {
  do current = current + 1 == fibers.size() ? 0 : current + 1; while (fibers[current].done);
  thread.x = fibers[current].thread;
  block.x = fibers[current].block;
  shim_switch(save, fibers[current].stack_pointer);
}
void yield() { if (alive > 1) resume(&fibers[current].stack_pointer); }
static void meet(Group& group, u32 size) {
  u32 round = group.round;
  if (++group.arrived == size) { group.arrived = 0; group.round++; }
  else while (group.round == round) yield();
}
void block_barrier() { meet(state().all, THREADS); }
u32 exchange(u32 value, u32 lane) {
  BlockState& block = state();
  Group& warp = block.warps[thread.x / 32];
  // Two sets by turns: who is quick can be at the next exchange while others still read, but not at the one after it.
  std::vector<u32>& given = block.given[warp.round % 2];
  given[thread.x] = value;
  u32 at = thread.x / 32 * 32 + lane;
  meet(warp, 32);
  return given[at];
}
static float half_of(u32 word, u32 i) { return half_to_float((u16)(i ? word >> 16 : word)); }
void multiply_add(float d[4], u32 a0, u32 a1, u32 b) {
  BlockState& block = state();
  Group& warp = block.warps[thread.x / 32];
  std::vector<Registers>& given = block.registers[warp.round % 2];
  u32 lane = thread.x % 32, first = thread.x - lane;
  given[thread.x] = {{a0, a1}, b};
  meet(warp, 32);
  for (u32 i = 0; i < 4; i++) {
    u32 row = lane / 4, column = lane % 4 * 2 + i % 2;
    for (u32 k = 0; k < 8; k++)
      d[i] += half_of(given[first + row * 4 + k / 2].a[i / 2], k % 2) * half_of(given[first + column * 4 + k / 2].b, k % 2);
  }
}
void* block_memory(size_t bytes) {
  std::vector<u64>& memory = state().memory;
  if (memory.empty()) memory.assign((bytes + 7) / 8, ~0ull);
  return memory.data();
}
static void enter() {
  (*body)();
  fibers[current].done = true;
  void* nowhere;
  if (--alive == 0) shim_switch(&nowhere, host);
  resume(&nowhere);
}
static void run_blocks(u32 first, u32 n, const std::function<void()>& f) {
  const size_t STACK = 1 << 16;
  static char* stacks;
  static size_t stacks_len;
  size_t needed = STACK * THREADS * n;
  if (needed > stacks_len) {
    if (stacks) munmap(stacks, stacks_len);
    stacks = (char*)mmap(0, needed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks_len = needed;
  }
  body = &f;
  first_block = first;
  blocks.assign(n, BlockState{{0, 0}, std::vector<Group>(THREADS / 32, Group{0, 0}), {std::vector<u32>(THREADS), std::vector<u32>(THREADS)},
                              {std::vector<Registers>(THREADS), std::vector<Registers>(THREADS)}, {}});
  fibers.resize(THREADS * n);
  for (size_t i = 0; i < fibers.size(); i++) {
    void** top = (void**)(stacks + (i + 1) * STACK - 64);
    *--top = 0;
    *--top = (void*)enter;
    fibers[i] = {top - 6, (u32)(i % THREADS), first + (u32)(i / THREADS), false};
  }
  alive = fibers.size();
  current = fibers.size() - 1;
  resume(&host);
}
static void run(u32 n, bool together, const std::function<void()>& f) {
  grid.x = n;
  if (together) run_blocks(0, n, f);
  else for (u32 b = 0; b < n; b++) run_blocks(b, 1, f);
}
}  // namespace shim

// ---- the driver -------------------------------------------------------------------------------------------------------

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719,
       CAPTURE_UNSUPPORTED = 900 };
static std::recursive_mutex lock;
static std::map<u64, size_t> allocations;
static size_t allocated;
typedef std::vector<std::function<void()>> Recording;
static thread_local Recording* recording;
static thread_local bool current;  // whether the context is, on this thread

static bool fails() {
  static long calls = 0, last = 0;  // counted anew for each N
  const char* when = getenv("FAIL_CALL");
  long n = when ? atol(when) : 0;
  if (n != last) { last = n; calls = 0; }
  return n && ++calls >= n;
}
#define CALL std::lock_guard<std::recursive_mutex> guard(lock); if (fails()) return LAUNCH_FAILED
#define CALL_IN_CONTEXT CALL; if (!current) return INVALID_CONTEXT
static bool within(u64 address, size_t bytes) {
  auto it = allocations.upper_bound(address);
  if (it == allocations.begin()) return false;
  --it;
  return address + bytes <= it->first + it->second;
}
static bool submit(std::function<void()> work) {
  if (recording) recording->push_back(work); else work();
  return true;
}

typedef void (*StepKernel)(Step);
static const std::map<std::string, StepKernel>& kernels() {
  static const std::map<std::string, StepKernel> table = {
      {"embed", embed}, {"pad_sides", pad_sides}, {"linear", linear}, {"matmul", matmul}, {"norm", norm},
      {"store_kv", store_kv}, {"attention", attention}, {"activate", activate}, {"copy_rows", copy_rows},
      {"join", join}, {"sample", sample}};
  return table;
}

extern "C" {
int cuInit(unsigned) { CALL; return SUCCESS; }
int cuDeviceGetCount(int* n) { CALL; *n = 1; return SUCCESS; }
int cuDeviceGet(int* device, int i) { CALL; *device = i; return SUCCESS; }
int cuDeviceGetAttribute(int* value, int which, int) {
  CALL;
  // Multiprocessors, compute capability, cooperative launches.
  *value = which == 16 ? 3 : which == 75 ? 9 : which == 95 ? !getenv("FAKE_NO_COOPERATION") : 0;
  return SUCCESS;
}
int cuDeviceGetName(char* name, int len, int) { CALL; snprintf(name, len, "the tests' device"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { CALL; *bytes = 1 << 30; return SUCCESS; }
int cuDevicePrimaryCtxRetain(void** context, int) { CALL; *context = (void*)1; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxPushCurrent_v2(void*) {
  CALL;
  if (current) return INVALID_CONTEXT;  // somebody forgot to pop
  current = true;
  return SUCCESS;
}
int cuCtxPopCurrent_v2(void** context) {
  // Also on a lost device.
  if (!current) return INVALID_CONTEXT;
  current = false;
  *context = (void*)1;
  CALL;
  return SUCCESS;
}
int cuModuleLoadData(void** module, const void* ptx) {
  CALL_IN_CONTEXT;
  *module = (void*)2;
  return strstr((const char*)ptx, ".entry run_program") ? SUCCESS : INVALID_VALUE;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  CALL_IN_CONTEXT;
  if (!strcmp(name, "run_program")) { *function = (void*)run_program; return SUCCESS; }
  auto it = kernels().find(name);
  if (it == kernels().end() || !strstr(name, it->first.c_str())) return NOT_FOUND;
  *function = (void*)it->second;
  return SUCCESS;
}
int cuMemAlloc_v2(u64* address, size_t bytes) {
  CALL_IN_CONTEXT;
  if (recording) return CAPTURE_UNSUPPORTED;
  const char* most = getenv("FAKE_MEMORY");
  if (most && allocated + bytes > (size_t)atoll(most)) return OUT_OF_MEMORY;
  void* p = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(p, 0xff, bytes);  // NaN
  allocations[(u64)p] = bytes;
  allocated += bytes;
  *address = (u64)p;
  return SUCCESS;
}
int cuMemFree_v2(u64 address) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  auto it = allocations.find(address);
  if (it == allocations.end()) abort();  // freed twice, or never handed out
  allocated -= it->second;
  allocations.erase(it);
  free((void*)address);
  return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void*) {
  CALL_IN_CONTEXT;
  if (recording || !within(to, bytes)) return INVALID_VALUE;
  memcpy((void*)to, from, bytes);
  return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void*) {
  CALL_IN_CONTEXT;
  if (recording || !within(from, bytes)) return INVALID_VALUE;
  memcpy(to, (void*)from, bytes);
  return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void*) {
  CALL_IN_CONTEXT;
  if (!within(from, bytes) || !within(to, bytes)) return INVALID_VALUE;
  memcpy((void*)to, (void*)from, bytes);
  return SUCCESS;
}
int cuMemsetD8Async(u64 at, unsigned char value, size_t bytes, void*) {
  CALL_IN_CONTEXT;
  if (!within(at, bytes)) return INVALID_VALUE;
  memset((void*)at, value, bytes);
  return SUCCESS;
}
int cuStreamCreate(void** stream, unsigned) { CALL_IN_CONTEXT; *stream = (void*)3; return SUCCESS; }
int cuStreamDestroy_v2(void*) { return SUCCESS; }
int cuStreamSynchronize(void*) { CALL_IN_CONTEXT; return recording ? CAPTURE_UNSUPPORTED : SUCCESS; }
int cuLaunchKernel(void* f, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz, unsigned,
                   void*, void** arguments, void**) {
  CALL_IN_CONTEXT;
  if (x == 0 || y * z * ty * tz != 1 || tx != THREADS) return INVALID_VALUE;
  Step step = *(Step*)arguments[0];
  submit([=] { shim::run(x, false, [=] { ((StepKernel)f)(step); }); });
  return SUCCESS;
}
int cuLaunchCooperativeKernel(void* f, unsigned x, unsigned, unsigned, unsigned tx, unsigned, unsigned, unsigned,
                              void*, void** arguments) {
  CALL_IN_CONTEXT;
  if (f != (void*)run_program || x == 0 || tx != THREADS) return INVALID_VALUE;
  const Step* steps = *(const Step**)arguments[0];
  const u32* program = *(const u32**)arguments[1];
  u32 n = *(u32*)arguments[2];
  u32* barrier = *(u32**)arguments[3];
  submit([=] { shim::run(x, true, [=] { run_program(steps, program, n, barrier); }); });
  return SUCCESS;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  CALL_IN_CONTEXT;
  *blocks = 2;
  return SUCCESS;
}
int cuStreamBeginCapture_v2(void*, int mode) {
  CALL_IN_CONTEXT;
  // Mode 0 would forbid every other thread to allocate meanwhile.
  if (recording || mode == 0) return INVALID_VALUE;
  recording = new Recording;
  return SUCCESS;
}
int cuStreamEndCapture(void*, void** graph) { *graph = recording; recording = 0; return SUCCESS; }
int cuGraphInstantiateWithFlags(void** exec, void* graph, u64) {
  CALL_IN_CONTEXT;
  *exec = new Recording(*(Recording*)graph);
  return SUCCESS;
}
int cuGraphLaunch(void* exec, void*) {
  CALL_IN_CONTEXT;
  for (auto& work : *(Recording*)exec) work();
  return SUCCESS;
}
int cuGraphDestroy(void* graph) { delete (Recording*)graph; return SUCCESS; }
int cuGraphExecDestroy(void* exec) { delete (Recording*)exec; return SUCCESS; }
int cuGetErrorName(int code, const char** name) {
  *name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR";
  return SUCCESS;
}
}
