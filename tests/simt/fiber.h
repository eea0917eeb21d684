// A fiber: a function with a stack of its own that can be left in the middle and resumed.
// AddressSanitizer is told about every switch.
#pragma once

#include <cstddef>

namespace simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber ready to run entry(argument); one that was left unfinished is forgotten,
  // without unwinding its stack.
  void start(void (*entry)(void*), void* argument);
  // Runs it until it leaves or ends. Not from within a fiber.
  void resume();
  // From within: back to who resumed it.
  void leave();
  // What a new stack runs first; for the switch alone.
  [[noreturn]] static void run(Fiber* self);

 private:
  void enter();

  struct Machine;  // registers
  Machine* machine_;
  char* memory_ = nullptr;  // guard page, then the stack
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool ending_ = false;
  bool forgotten_ = true;  // what a run that was left unfinished poisoned is still so
  // AddressSanitizer's view: the fiber's shadow stack, and the stack of who resumed it
  void* fake_stack_ = nullptr;
  const void* caller_bottom_ = nullptr;
  std::size_t caller_size_ = 0;
};

}  // namespace simt
