#include "capi/status.h"

#include <cstdio>
#include <cstring>
#include <new>

namespace marketplace::capi {
namespace {

// Plain memory: writing it cannot fail, and threads leave nothing to destroy.
thread_local char last_error[1024] = "";

mp_status report(mp_status status, const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
  return status;
}

mp_status status_of(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::value: return MP_INVALID_VALUE;
    case ErrorKind::type: return MP_INVALID_TYPE;
    case ErrorKind::runtime: return MP_RUNTIME_ERROR;
    case ErrorKind::memory: return MP_OUT_OF_MEMORY;
  }
  return MP_INTERNAL_ERROR;
}

}  // namespace

FileError::FileError(const std::string& path, const std::string& expected, int error)
    : std::runtime_error("file " + path + ": expected " + expected + ", received " +
                         std::strerror(error)) {}

mp_status report_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return report(status_of(error.kind()), error.what());
  } catch (const FileError& error) {
    return report(MP_FILE_ERROR, error.what());
  } catch (const std::bad_alloc&) {
    return report(MP_OUT_OF_MEMORY, "memory: expected enough of it, received none");
  } catch (const std::length_error&) {
    return report(MP_OUT_OF_MEMORY, "memory: expected an array that fits, received a longer one");
  } catch (const std::exception& error) {
    return report(MP_INTERNAL_ERROR, error.what());
  } catch (...) {
    return report(MP_INTERNAL_ERROR, "an exception of unknown type");
  }
}

std::int64_t in_range(std::int64_t value, std::int64_t first, std::int64_t last, const char* op,
                      const char* name) {
  if (value < first || value > last)
    fail(op, std::string(name) + " from " + std::to_string(first) + " to " + std::to_string(last),
         std::to_string(value));
  return value;
}

std::int64_t extent(std::int64_t value, std::int64_t first, const char* op, const char* name) {
  return in_range(value, first, INT32_MAX, op, name);
}

std::int64_t checked_count(const std::int64_t* shape, std::int64_t ndim, const char* op) {
  constexpr std::int64_t most = std::int64_t{1} << 36;
  std::int64_t count = 1;
  for (std::int64_t i = 0; i < ndim; ++i) {
    const std::int64_t own = extent(shape[i], 1, op, "an extent");
    if (own > most / count) fail(op, "at most 2^36 elements", "more");
    count *= own;
  }
  return count;
}

}  // namespace marketplace::capi

using namespace marketplace::capi;

const char* mp_last_error() {
  return last_error;
}

const char* mp_version() {
  return MARKETPLACE_VERSION;
}

int32_t mp_abi_version() {
  return MP_ABI_VERSION;
}
