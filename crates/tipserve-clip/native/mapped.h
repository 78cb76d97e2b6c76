// TorchScript archives whose tensors stay in the file.
#pragma once

#include <c10/core/Device.h>
#include <torch/script.h>

namespace tipserve {

// The archive's module, with its tensors on a device: on the CPU they are views of the mapped file.
// Throws what torch does, and std::runtime_error for an archive that cannot be read so.
torch::jit::Module load_mapped(const char* path, c10::Device device);

}  // namespace tipserve
