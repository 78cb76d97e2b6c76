// Tensors on the CPU from mimalloc (`src/tensor_memory.rs`).

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstddef>

extern "C" void* mi_malloc_aligned(size_t size, size_t alignment);
extern "C" void mi_free(void* memory);

namespace {

// torch's own alignment, which its kernels want (c10/core/alignment.h).
constexpr size_t kAlignment = 64;

struct TensorMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* memory = size == 0 ? nullptr : mi_malloc_aligned(size, kAlignment);
    TORCH_CHECK(memory != nullptr || size == 0, "can't allocate memory: ", size, " bytes");
    return {memory, memory, &mi_free, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &mi_free; }

  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};

}  // namespace

extern "C" void tipserve_tensor_memory_install() noexcept {
  // Lives as long as the process: tensors end in static destructors, too.
  static auto* memory = new TensorMemory();
  c10::SetCPUAllocator(memory, /*priority=*/1);
}
