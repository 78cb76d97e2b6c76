// CUDA graphs: what a stream is given to do, recorded once and launched again as a whole.
//
// torch's own class for them, at::cuda::CUDAGraph, is used, because it alone can tell torch's
// allocator to keep what was allocated while recording away from everybody else, for as long as the
// graph lives. (Recording by CUDA's plain C calls without that would leave the graph writing into
// memory that the allocator hands to others.) The device-agnostic half of torch has no graphs, the
// class's header needs CUDA's headers, and its library is loaded at run time only. So its methods
// are looked up by their mangled names when they are first wanted. What the names do not say is the
// object's size: 104 bytes in torch 2.11, for which `room` has space many times over. A torch that
// has changed a signature has changed the name, and there are no graphs then, which is said.
//
// Where recording fails (an operator that waits for the device, say), capture_end() of torch 2.11
// throws before it tells the allocator and the random generator that recording is over, and leaves
// them as they are: memory is no longer given back from then on, and nothing random can be drawn. A
// second, empty recording that ends well tidies up; `end` makes one.
//
// No function throws: each gives null, or a message that the caller frees.

#include "guarded.h"

#include <dlfcn.h>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

using tipserve::cuda;
using tipserve::guarded;
using tipserve::stream_of;
using tipserve::succeeds;

namespace {

// cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile.
constexpr int thread_local_mode = 1;

using Pool = std::pair<unsigned long long, unsigned long long>;

// at::cuda::CUDAGraph's methods as functions of the object, and two plain calls of CUDA's.
struct Symbols {
  void (*construct)(void*, bool);
  void (*destruct)(void*);
  void (*capture_begin)(void*, Pool, int);
  void (*capture_end)(void*);
  void (*replay)(void*);
  int (*begin_capture)(void* stream, int mode);
  int (*get_last_error)();
};

template <typename Function>
void find(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
  if (function == nullptr) {
    throw std::runtime_error(std::string("this torch has no ") + name);
  }
}

const Symbols& symbols() {
  static const Symbols found = [] {
    Symbols s{};
    find(s.construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(s.destruct, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(s.capture_begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(s.capture_end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(s.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    find(s.begin_capture, "cudaStreamBeginCapture");
    find(s.get_last_error, "cudaGetLastError");
    return s;
  }();
  return found;
}

}  // namespace

// A graph being recorded, or recorded.
struct tipserve_graph {
  explicit tipserve_graph(tipserve_stream stream) : stream(stream) {
    symbols().construct(room, false);
  }

  ~tipserve_graph() { symbols().destruct(room); }

  tipserve_graph(const tipserve_graph&) = delete;
  tipserve_graph& operator=(const tipserve_graph&) = delete;

  tipserve_stream stream;
  alignas(std::max_align_t) std::byte room[4096]{};
};

namespace {

// Begins an empty recording by CUDA's own call, of which torch's class knows nothing.
bool begin_empty(tipserve_stream stream) {
  void* native = nullptr;
  if (!succeeds([&] { native = cuda().getStreamNativeHandle(stream_of(stream)); })) {
    return false;
  }
  if (symbols().begin_capture(native, thread_local_mode) == 0) {
    return true;
  }
  // Or torch would take it for the next kernel's.
  symbols().get_last_error();
  return false;
}

// Ends a recording; where that fails, tidies up, or, where that fails too, keeps the object: the
// allocator still asks it.
void end(std::unique_ptr<tipserve_graph>& graph) {
  try {
    symbols().capture_end(graph->room);
  } catch (...) {
    const bool tidy = begin_empty(graph->stream) &&
        succeeds([&] { symbols().capture_end(graph->room); });
    if (!tidy) {
      graph.release();
    }
    throw;
  }
}

}  // namespace

extern "C" {

// Whether there are graphs: null, or why not.
char* tipserve_graph_available() {
  return guarded([] { symbols(); });
}

// Begins to record what the calling thread launches on `stream`, which must be its current one.
char* tipserve_graph_begin(tipserve_stream stream, tipserve_graph** begun) {
  return guarded([&] {
    auto graph = std::make_unique<tipserve_graph>(stream);
    try {
      symbols().capture_begin(graph->room, Pool{0, 0}, thread_local_mode);
    } catch (...) {
      // It may have come as far as the allocator.
      succeeds([&] { end(graph); });
      throw;
    }
    *begun = graph.release();
  });
}

// Ends the recording. Where that fails, the graph is gone.
char* tipserve_graph_end(tipserve_graph* recorded) {
  return guarded([&] {
    std::unique_ptr<tipserve_graph> graph(recorded);
    end(graph);
    graph.release();
  });
}

// Launches it on the calling thread's current stream.
char* tipserve_graph_replay(tipserve_graph* graph) {
  return guarded([&] { symbols().replay(graph->room); });
}

// Frees it and what it has allocated. It must not be running.
char* tipserve_graph_free(tipserve_graph* graph) {
  return guarded([&] { delete graph; });
}

}  // extern "C"
