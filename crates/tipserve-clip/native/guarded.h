// What the calls of this folder share: no exception gets out of them.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

extern "C" struct tipserve_stream {
  int64_t id;
  int32_t device;
};

namespace tipserve {

// For when there is no memory for a line of text: something must still not be null.
inline char nothing_left[] = "out of memory";

inline char* copy(const char* text) {
  char* copied = strdup(text);
  return copied != nullptr ? copied : nothing_left;
}

inline void free_message(char* message) {
  if (message != nothing_left) {
    std::free(message);
  }
}

// Null, or what `body` threw, as a message that the caller frees.
template <typename Body>
char* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("an exception of an unknown kind");
  }
}

// Whether `body` threw nothing.
template <typename Body>
bool succeeds(Body body) noexcept {
  char* message = guarded(body);
  free_message(message);
  return message == nullptr;
}

inline c10::impl::VirtualGuardImpl cuda() {
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
}

inline c10::Device device_of(int32_t index) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}

inline c10::Stream stream_of(tipserve_stream stream) {
  return c10::Stream(c10::Stream::UNSAFE, device_of(stream.device), stream.id);
}

}  // namespace tipserve
