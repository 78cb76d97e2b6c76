// CUDA streams and the allocator's figures, which tch has no call for.
//
// Only the device-agnostic half of torch (c10/core) is named here, so that this compiles and links
// without CUDA, against every libtorch. The CUDA half registers itself with it once libtorch_cuda.so
// is loaded. No function throws: each gives null, or a message that the caller frees.

#include "guarded.h"

#include <c10/core/CachingDeviceAllocator.h>

using tipserve::cuda;
using tipserve::device_of;
using tipserve::guarded;
using tipserve::stream_of;

extern "C" {

struct tipserve_memory {
  uint64_t free;       // of the card, whoever uses it
  uint64_t total;      // of the card
  uint64_t allocated;  // by this process's tensors
  uint64_t reserved;   // by torch's allocator in this process
};

// A stream that neither waits for the default stream nor is waited for.
char* tipserve_stream_new(int32_t device, tipserve_stream* made) {
  return guarded([&] {
    const c10::Stream stream = cuda().getStreamFromGlobalPool(device_of(device), false);
    *made = {stream.id(), device};
  });
}

// Makes it the calling thread's current stream of its device; gives the one before.
char* tipserve_stream_enter(tipserve_stream stream, tipserve_stream* before) {
  return guarded([&] {
    const c10::Stream was = cuda().exchangeStream(stream_of(stream));
    *before = {was.id(), stream.device};
  });
}

// Blocks until all that was launched on it is done.
char* tipserve_stream_wait(tipserve_stream stream) {
  return guarded([&] { cuda().synchronizeStream(stream_of(stream)); });
}

char* tipserve_memory_of(int32_t device, tipserve_memory* memory) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto stats = allocator->getDeviceStats(index);
    const auto [free, total] = allocator->getMemoryInfo(index);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *memory = {
        free,
        total,
        static_cast<uint64_t>(stats.allocated_bytes[all].current),
        static_cast<uint64_t>(stats.reserved_bytes[all].current)};
  });
}

// Gives what torch's allocator holds and no tensor uses back to the card.
char* tipserve_memory_release() {
  return guarded([] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

void tipserve_message_free(char* message) {
  tipserve::free_message(message);
}

}  // extern "C"
