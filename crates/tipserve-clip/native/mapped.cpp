// Loading TorchScript archives whose tensors stay in the file: their storages are views of one
// private mapping of it, so that nothing is copied and the pages can be dropped and read again.
//
// torch::jit::load copies every record. What it is made of can be given storages beforehand, as
// torch.package does; this is that, for a file that torch.jit.save or torch::jit::save wrote.

#include "mapped.h"

#include <ATen/core/ivalue.h>
#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <torch/csrc/jit/operator_upgraders/upgraders_entry.h>
#include <torch/csrc/jit/serialization/import_read.h>
#include <torch/csrc/jit/serialization/import_source.h>
#include <torch/csrc/jit/serialization/storage_context.h>
#include <torch/script.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using caffe2::serialize::PyTorchStreamReader;
using torch::jit::CompilationUnit;
using torch::jit::DeserializationStorageContext;
using torch::jit::Module;

namespace tipserve {
namespace {

// What kernels may ask of a tensor's address; the writer aligns records to 64.
constexpr uint64_t kAlignment = 64;

// A file in memory. Writing to it changes this process's copy of a page only.
class Mapping {
 public:
  explicit Mapping(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
      throw std::runtime_error(std::string("it cannot be opened: ") + std::strerror(errno));
    }
    struct stat found {};
    if (fstat(file, &found) != 0 || found.st_size <= 0) {
      close(file);
      throw std::runtime_error("it is empty, or its size cannot be read");
    }
    size_ = static_cast<size_t>(found.st_size);
    start_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    const int error = errno;
    close(file);
    if (start_ == MAP_FAILED) {
      throw std::runtime_error(std::string("it cannot be mapped: ") + std::strerror(error));
    }
    // Ahead of the first pass over the weights; a hint, so that failing does no harm.
    madvise(start_, size_, MADV_WILLNEED);
  }

  ~Mapping() { munmap(start_, size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* at(uint64_t offset) const { return static_cast<char*>(start_) + offset; }
  size_t size() const { return size_; }

 private:
  void* start_;
  size_t size_;
};

// Reads the archive's directory and small records.
class MappedReader final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit MappedReader(std::shared_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}

  size_t size() const override { return mapping_->size(); }

  size_t read(uint64_t pos, void* buffer, size_t n, const char*) const override {
    if (pos >= mapping_->size()) {
      return 0;
    }
    const size_t count = std::min<size_t>(n, mapping_->size() - pos);
    std::memcpy(buffer, mapping_->at(pos), count);
    return count;
  }

 private:
  std::shared_ptr<Mapping> mapping_;
};

void release(void* held) { delete static_cast<std::shared_ptr<Mapping>*>(held); }

// Whether a record's bytes lie in the file as they are: method 0 in its local header.
bool is_stored(const Mapping& mapping, uint64_t header, uint64_t offset, uint64_t size) {
  constexpr uint64_t kMethod = 8;
  if (offset > mapping.size() || size > mapping.size() - offset || header + kMethod + 2 > offset) {
    return false;
  }
  const char* method = mapping.at(header + kMethod);
  return method[0] == 0 && method[1] == 0 && offset % kAlignment == 0;
}

// Storages of an archive's tensors (`data/0`, `data/1`, …), by the names that its pickle has.
std::shared_ptr<DeserializationStorageContext> storages(const std::shared_ptr<Mapping>& mapping,
                                                        PyTorchStreamReader& reader,
                                                        const std::string& archive) {
  auto context = std::make_shared<DeserializationStorageContext>();
  const std::string prefix = archive + "/";
  for (const std::string& record : reader.getAllRecords()) {
    if (record.compare(0, prefix.size(), prefix) != 0) {
      continue;
    }
    const uint64_t size = reader.getRecordSize(record);
    const uint64_t offset = reader.getRecordOffset(record);
    if (size == 0 || !is_stored(*mapping, reader.getRecordHeaderOffset(record), offset, size)) {
      continue;  // it is read as torch does
    }
    auto* held = new std::shared_ptr<Mapping>(mapping);
    at::DataPtr data(mapping->at(offset), held, release, c10::Device(c10::kCPU));
    context->addStorage(record.substr(prefix.size()),
                        c10::Storage(c10::Storage::use_byte_size_t(), size, std::move(data),
                                     nullptr, /*resizable=*/false));
  }
  return context;
}

// What torch's own deserializer does, with the storages given.
class Loader {
 public:
  Loader(const char* path, c10::Device device)
      : mapping_(std::make_shared<Mapping>(path)),
        reader_(std::make_shared<MappedReader>(mapping_)),
        unit_(std::make_shared<CompilationUnit>()),
        device_(device),
        importer_(unit_, &constants_, [this](const std::string& name) { return source(name); },
                  reader_.version()) {}

  Module load() {
    torch::jit::populate_upgraders_graph_map();
    const c10::IValue constants = read("constants");
    for (const c10::IValue& constant : constants.toTupleRef().elements()) {
      constants_.push_back(constant);
    }
    return Module(read("data").toObject());
  }

 private:
  std::shared_ptr<torch::jit::Source> source(const std::string& qualifier) {
    std::string path = "code/" + qualifier;
    std::replace(path.begin(), path.end(), '.', '/');
    path += ".py";
    if (!reader_.hasRecord(path)) {
      return nullptr;
    }
    auto [data, size] = reader_.getRecord(path);
    std::string text(static_cast<const char*>(data.get()), size);
    return std::make_shared<torch::jit::Source>(std::move(text), path, 1, nullptr,
                                                torch::jit::Source::COPIES_STRING);
  }

  c10::intrusive_ptr<c10::ivalue::Object> object(const c10::StrongTypePtr& type,
                                                 const c10::IValue& state) {
    const auto of = type.type_->expect<c10::ClassType>();
    const size_t count = of->numAttributes();
    auto made = c10::ivalue::Object::create(type, count);
    if (torch::jit::Function* restore = of->findMethod("__setstate__")) {
      // Packed 8-bit weights, for one.
      (*restore)({made, state});
      return made;
    }
    const auto values = state.toGenericDict();
    for (size_t i = 0; i < count; ++i) {
      made->setSlot(i, values.at(of->getAttributeName(i)));
    }
    return made;
  }

  c10::IValue read(const std::string& archive) {
    // Classes, and others: timm's modules have an enum of layouts.
    const auto resolve = [this](const c10::QualifiedName& name) {
      return c10::StrongTypePtr(unit_, importer_.loadType(name));
    };
    const auto make = [this](const c10::StrongTypePtr& type, const c10::IValue& state) {
      return object(type, state);
    };
    return torch::jit::readArchiveAndTensors(
        archive, /*pickle_prefix=*/"", /*tensor_prefix=*/"", resolve, make, device_, reader_,
        torch::jit::Unpickler::defaultTypeParser, storages(mapping_, reader_, archive));
  }

  std::shared_ptr<Mapping> mapping_;
  PyTorchStreamReader reader_;
  std::shared_ptr<CompilationUnit> unit_;
  c10::Device device_;
  std::vector<at::IValue> constants_;
  torch::jit::SourceImporter importer_;
};

}  // namespace

Module load_mapped(const char* path, c10::Device device) { return Loader(path, device).load(); }

}  // namespace tipserve
