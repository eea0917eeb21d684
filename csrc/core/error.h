// One error type for the whole engine: which op, what it expected, what it received.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace marketplace {

enum class ErrorKind { value, type, runtime, memory };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

[[noreturn]] inline void fail(ErrorKind kind, const std::string& op, const std::string& expected,
                              const std::string& received) {
  throw Error(kind, op + ": expected " + expected + ", received " + received);
}

// The usual check at the door: a wrong value or shape.
[[noreturn]] inline void fail(const std::string& op, const std::string& expected,
                              const std::string& received) {
  fail(ErrorKind::value, op, expected, received);
}

}  // namespace marketplace
