// The line that no exception crosses, and the checks that every call makes at it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "capi/marketplace.h"
#include "core/error.h"

namespace marketplace::capi {

// A file that cannot be opened, read or written.
class FileError : public std::runtime_error {
 public:
  FileError(const std::string& path, const std::string& expected, int error);
};

// The status of the exception that is being handled; its text becomes this thread's last error.
mp_status report_exception() noexcept;

template <class Body>
mp_status guarded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return MP_OK;
  } catch (...) {
    return report_exception();
  }
}

// Throws unless the caller gave an address.
template <class T>
T& required(T* pointer, const char* op, const char* name) {
  if (pointer == nullptr) fail(op, name, "NULL");
  return *pointer;
}

// Throws unless first <= value <= last.
std::int64_t in_range(std::int64_t value, std::int64_t first, std::int64_t last, const char* op,
                      const char* name);
// An extent, stride or count of at least `first` that cannot overflow the engine's arithmetic.
std::int64_t extent(std::int64_t value, std::int64_t first, const char* op, const char* name);

// Elements of row-major extents of at least 1; throws beyond 2^36.
std::int64_t checked_count(const std::int64_t* shape, std::int64_t ndim, const char* op);

}  // namespace marketplace::capi
