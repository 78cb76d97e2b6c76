// torch's own profiler (Kineto), which tch has no call for: of all threads, and of the GPU's kernels
// and copies where there is one.

#include <torch/csrc/autograd/profiler_kineto.h>

#include <cstdio>
#include <exception>
#include <set>
#include <string>

namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ExperimentalConfig;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

// Whether `body` threw nothing; what it threw is printed.
template <typename Body>
bool succeeds(Body body) noexcept {
  try {
    body();
    return true;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "profiler: %s\n", error.what());
  } catch (...) {
    std::fprintf(stderr, "profiler: an exception of an unknown kind\n");
  }
  return false;
}

}  // namespace

extern "C" bool tipserve_profile_begin(bool cuda) {
  return succeeds([cuda] {
    std::set<ActivityType> activities = {ActivityType::CPU};
    if (cuda) {
      activities.insert(ActivityType::CUDA);
    }
    ExperimentalConfig every_thread;
    every_thread.profile_all_threads = true;
    const ProfilerConfig config(ProfilerState::KINETO, false, false, false, false, false, every_thread);
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION});
  });
}

// Writes a trace in Chrome's format.
extern "C" bool tipserve_profile_end(const char* file) {
  return succeeds([file] { profiler::disableProfiler()->save(std::string(file)); });
}
