// A CUDA runtime for machines without a GPU, preloaded before the real one: one device, whose memory
// is the host's and whose kernels do nothing. New memory holds ones, so that what kernels would have
// written can be told from zeros. Enough of it is here for torch 2.11 to allocate, copy, launch, and
// record graphs; recording is refused as often as FAKE_CUDA_REFUSALS says.

#include <driver_types.h>
#include <vector_types.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace {

thread_local int last_error = 0;
std::mutex lock;
// Page-locked memory, by its first byte.
std::map<char*, size_t> page_locked;
struct Capture {
  bool active = false;
  unsigned long long id = 0;
};
std::map<void*, Capture> captures;
unsigned long long captures_begun = 0;
int graphs_launched = 0;
int refusals_left = [] {
  const char* text = std::getenv("FAKE_CUDA_REFUSALS");
  return text != nullptr ? std::atoi(text) : 0;
}();

cudaError_t failed(int error) {
  last_error = error;
  return static_cast<cudaError_t>(error);
}

cudaError_t allocate(void** memory, size_t bytes) {
  bytes = (bytes + 4095) / 4096 * 4096;
  auto* numbers = static_cast<float*>(std::aligned_alloc(4096, bytes));
  *memory = numbers;
  if (numbers == nullptr) {
    return failed(cudaErrorMemoryAllocation);
  }
  std::fill_n(numbers, bytes / sizeof(float), 1.0F);
  return cudaSuccess;
}

cudaError_t allocate_page_locked(void** memory, size_t bytes) {
  const std::lock_guard<std::mutex> guard(lock);
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  page_locked[static_cast<char*>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t make(void** made) {
  *made = std::malloc(16);
  return cudaSuccess;
}

cudaError_t unmake(void* made) {
  std::free(made);
  return cudaSuccess;
}

}  // namespace

extern "C" {

// For whoever asks how it went.
int fake_cuda_graphs_launched() { return graphs_launched; }
void fake_cuda_refuse(int times) { refusals_left = times; }

cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, int, int) { *value = 1; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* all, int) {
  *all = {};
  std::strcpy(all->name, "fake");
  all->major = 9;
  all->multiProcessorCount = 1;
  all->warpSize = 32;
  all->maxThreadsPerBlock = 1024;
  all->maxThreadsPerMultiProcessor = 2048;
  all->totalGlobalMem = 1ULL << 30;
  all->maxGridSize[0] = 1 << 30;
  all->maxGridSize[1] = all->maxGridSize[2] = 65535;
  all->maxThreadsDim[0] = all->maxThreadsDim[1] = 1024;
  all->maxThreadsDim[2] = 64;
  all->sharedMemPerBlock = 49152;
  all->regsPerBlock = 65536;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(
    const char*, void** entry, unsigned, unsigned long long, int* status) {
  *entry = nullptr;
  if (status != nullptr) {
    *status = 1;
  }
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) { return allocate(memory, bytes); }
cudaError_t cudaFree(void* memory) { return unmake(memory); }
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return allocate_page_locked(memory, bytes);
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return allocate_page_locked(memory, bytes);
}
cudaError_t cudaFreeHost(void* memory) {
  const std::lock_guard<std::mutex> guard(lock);
  page_locked.erase(static_cast<char*>(memory));
  return unmake(memory);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* all, const void* pointer) {
  const std::lock_guard<std::mutex> guard(lock);
  *all = {};
  auto* byte = static_cast<char*>(const_cast<void*>(pointer));
  auto next = page_locked.upper_bound(byte);
  if (next != page_locked.begin() && byte < std::prev(next)->first + std::prev(next)->second) {
    all->type = cudaMemoryTypeHost;
    all->hostPointer = byte;
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = 1ULL << 29;
  *total = 1ULL << 30;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, int) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, void*) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, void*) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(void** stream, unsigned, int) { return make(stream); }
cudaError_t cudaStreamQuery(void*) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(void*, void*, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(void* stream) {
  const std::lock_guard<std::mutex> guard(lock);
  return captures[stream].active ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(void** event, unsigned) { return make(event); }
cudaError_t cudaEventDestroy(void* event) { return unmake(event); }
cudaError_t cudaEventRecord(void*, void*) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(void*, void*, unsigned) { return cudaSuccess; }
cudaError_t cudaEventQuery(void*) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(void*) { return cudaSuccess; }

cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, void*) {
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const void*, const void*, void**) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* all, const void*) {
  *all = {};
  all->maxThreadsPerBlock = 1024;
  all->binaryVersion = all->ptxVersion = 90;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, int, int) { return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void*, int, size_t, unsigned) {
  *blocks = 1;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  return static_cast<cudaError_t>(std::exchange(last_error, 0));
}
cudaError_t cudaPeekAtLastError() { return static_cast<cudaError_t>(last_error); }

cudaError_t cudaThreadExchangeStreamCaptureMode(int* mode) {
  thread_local int current = 0;
  std::swap(*mode, current);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(void* stream, int) {
  const std::lock_guard<std::mutex> guard(lock);
  if (captures[stream].active) {
    return failed(cudaErrorIllegalState);
  }
  captures[stream] = {true, ++captures_begun};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(void* stream, void** graph) {
  const std::lock_guard<std::mutex> guard(lock);
  *graph = nullptr;
  if (!std::exchange(captures[stream].active, false)) {
    return failed(cudaErrorIllegalState);
  }
  if (refusals_left > 0) {
    --refusals_left;
    return failed(cudaErrorStreamCaptureInvalidated);
  }
  return make(graph);
}
cudaError_t cudaStreamIsCapturing(void* stream, int* status) {
  const std::lock_guard<std::mutex> guard(lock);
  *status = captures[stream].active ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(
    void* stream, int* status, unsigned long long* id, void*, void*, void*, void*) {
  const std::lock_guard<std::mutex> guard(lock);
  *status = captures[stream].active ? 1 : 0;
  if (id != nullptr) {
    *id = captures[stream].id;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(void*, void*, size_t* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGraphInstantiateWithFlags(void** made, void*, unsigned long long) {
  return make(made);
}
cudaError_t cudaGraphLaunch(void*, void*) { ++graphs_launched; return cudaSuccess; }
cudaError_t cudaGraphDestroy(void* graph) { return unmake(graph); }
cudaError_t cudaGraphExecDestroy(void* graph) { return unmake(graph); }

}  // extern "C"
