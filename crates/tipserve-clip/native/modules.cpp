// TorchScript modules: what tch's own binding of them lacks is freezing, fusing, and the choice of
// the engine that 8-bit archives are unpacked for.
//
// No function throws: each gives null, or a message that the caller frees.

#include "guarded.h"
#include "mapped.h"

#include <ATen/Context.h>
#include <torch/csrc/jit/passes/constant_pooling.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/script.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

using tipserve::guarded;
using torch::jit::Module;

namespace {

Module& module_of(void* module) { return *static_cast<Module*>(module); }

// oneDNN's 8-bit kernels: the quickest of torch's on x86-64 with VNNI, and the only ones that do
// not want a bit of the activations' range for their sums.
void choose_onednn() {
  const auto& engines = at::globalContext().supportedQEngines();
  if (std::find(engines.begin(), engines.end(), at::QEngine::ONEDNN) == engines.end()) {
    throw std::runtime_error("this torch is built without oneDNN's 8-bit kernels");
  }
  at::globalContext().setQEngine(at::QEngine::ONEDNN);
}

// Mapped if the archive allows it; else as torch does it, whose message then tells what is wrong.
Module load(const char* path, c10::Device device, bool* mapped) {
  try {
    *mapped = true;
    return tipserve::load_mapped(path, device);
  } catch (const std::exception&) {
    *mapped = false;
    return torch::jit::load(path, device);
  }
}

uint64_t constants_of(const torch::jit::Block& block) {
  uint64_t bytes = 0;
  for (const torch::jit::Node* node : block.nodes()) {
    if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
        node->kindOf(c10::attr::value) == torch::jit::AttributeKind::t) {
      bytes += node->t(c10::attr::value).nbytes();
    }
    for (const torch::jit::Block* inner : node->blocks()) {
      bytes += constants_of(*inner);
    }
  }
  return bytes;
}

}  // namespace

extern "C" {

// Loads an archive in `eval` onto a CUDA device, or the CPU where `cuda` is negative. `int8`: it
// holds packed 8-bit weights, for the CPU. `mapped`: whether its tensors are views of the file.
char* tipserve_module_load(const char* path, int32_t cuda, bool int8, void** loaded, bool* mapped) {
  return guarded([&] {
    if (int8) {
      choose_onednn();
    }
    const c10::Device device = cuda < 0 ? c10::Device(c10::kCPU) : tipserve::device_of(cuda);
    auto module = std::make_unique<Module>(load(path, device, mapped));
    module->eval();
    *loaded = module.release();
  });
}

void tipserve_module_free(void* module) { delete static_cast<Module*>(module); }

// Converts parameters and buffers to a format, by torch's number for it.
char* tipserve_module_convert(void* module, int8_t kind) {
  return guarded([&] { module_of(module).to(static_cast<c10::ScalarType>(kind)); });
}

char* tipserve_module_parameters(void* module, uint64_t* count) {
  return guarded([&] {
    uint64_t sum = 0;
    for (const at::Tensor& parameter : module_of(module).parameters()) {
      sum += static_cast<uint64_t>(parameter.numel());
    }
    *count = sum;
  });
}

// A module of the same function whose weights are constants, with operators fused and weights laid
// out for the CPU's kernels. It shares nothing that the first one changes.
char* tipserve_module_fuse(void* module, void** fused) {
  return guarded([&] {
    Module frozen = torch::jit::freeze(module_of(module));
    auto made = std::make_unique<Module>(torch::jit::optimize_for_inference(frozen));
    // What was laid out anew is still there as it was, unused, and is there twice where two
    // branches have the same layers.
    auto graph = made->get_method("forward").graph();
    torch::jit::EliminateDeadCode(graph);
    torch::jit::ConstantPooling(graph);
    *fused = made.release();
  });
}

// Bytes of the tensors that are constants of its graph.
char* tipserve_module_constants(void* module, uint64_t* bytes) {
  return guarded([&] {
    auto graph = module_of(module).get_method("forward").graph();
    *bytes = constants_of(*graph->block());
  });
}

// The module's output for one tensor; the caller owns it.
char* tipserve_module_forward(void* module, const at::Tensor* input, at::Tensor** output) {
  return guarded([&] {
    std::vector<c10::IValue> inputs{*input};
    *output = new at::Tensor(module_of(module).forward(std::move(inputs)).toTensor());
  });
}

}  // extern "C"
