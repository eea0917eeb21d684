#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIMT_UNPOISONED __attribute__((no_sanitize("address")))
#else
#define SIMT_UNPOISONED
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // untouched pages cost nothing

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// The sanitizer's part of a switch to the stack at `bottom`; `save` null ends the current stack.
void before_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                   [[maybe_unused]] std::size_t bytes) {
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
}
void after_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                  [[maybe_unused]] std::size_t* bytes) {
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
#endif
}

}  // namespace

// Not sanitized, as run() is not: before what does not return AddressSanitizer clears a whole
// stack's shadow and asks the kernel for the signals' stack, which took half of a launch's time.
extern "C" [[noreturn]] SIMT_UNPOISONED void simt_run_fiber(void* fiber) {
  Fiber::run(static_cast<Fiber*>(fiber));
}

#if defined(__x86_64__)

// Saves the callee's registers on this stack and goes on with those saved on the other: a hundred
// times cheaper than swapcontext, which asks the kernel for the signal mask.
extern "C" void simt_switch_stack(void** save, void* load);
asm(R"(
.text
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, . - simt_switch_stack
.type simt_first_frame, @function
simt_first_frame:
  movq %rbx, %rdi
  call simt_run_fiber
.size simt_first_frame, . - simt_first_frame
)");
extern "C" void simt_first_frame();

struct Fiber::Machine {
  void* inside = nullptr;
  void* outside = nullptr;
};

#else

struct Fiber::Machine {
  ucontext_t inside, outside;
};

void first_frame(unsigned low, unsigned high) {
  simt_run_fiber(reinterpret_cast<void*>((static_cast<std::uintptr_t>(high) << 32) | low));
}

#endif

Fiber::Fiber() : machine_(new Machine) {
  void* memory = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  mprotect(memory_, page_bytes(), PROT_NONE);
}

Fiber::~Fiber() {
  munmap(memory_, page_bytes() + kStackBytes);
  delete machine_;
}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  ending_ = false;
  fake_stack_ = nullptr;
  char* const bottom = memory_ + page_bytes();
#if defined(SIMT_ASAN)
  if (forgotten_) __asan_unpoison_memory_region(bottom, kStackBytes);  // its frames
#endif
  forgotten_ = true;
#if defined(__x86_64__)
  // as simt_switch_stack leaves a stack: the address to return to above six registers
  auto** top = reinterpret_cast<void**>(bottom + kStackBytes);
  *--top = nullptr;
  *--top = nullptr;  // two words, so that the first frame's call finds the stack aligned
  *--top = reinterpret_cast<void*>(&simt_first_frame);
  *--top = nullptr;  // rbp
  *--top = this;     // rbx
  for (int i = 0; i < 4; ++i) *--top = nullptr;
  machine_->inside = top;
#else
  getcontext(&machine_->inside);
  machine_->inside.uc_stack.ss_sp = bottom;
  machine_->inside.uc_stack.ss_size = kStackBytes;
  machine_->inside.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&machine_->inside, reinterpret_cast<void (*)()>(&first_frame), 2,
              static_cast<unsigned>(self), static_cast<unsigned>(self >> 32));
#endif
}

SIMT_UNPOISONED void Fiber::run(Fiber* self) {
  self->enter();
  self->entry_(self->argument_);
  self->forgotten_ = false;
  self->ending_ = true;
  self->leave();
  __builtin_unreachable();
}

void Fiber::enter() {
  after_switch(fake_stack_, &caller_bottom_, &caller_size_);
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  before_switch(&fake_stack, memory_ + page_bytes(), kStackBytes);
#if defined(__x86_64__)
  simt_switch_stack(&machine_->outside, machine_->inside);
#else
  swapcontext(&machine_->outside, &machine_->inside);
#endif
  after_switch(fake_stack, nullptr, nullptr);
}

void Fiber::leave() {
  before_switch(ending_ ? nullptr : &fake_stack_, caller_bottom_, caller_size_);
#if defined(__x86_64__)
  simt_switch_stack(&machine_->inside, machine_->outside);
#else
  swapcontext(&machine_->inside, &machine_->outside);
#endif
  enter();
}

}  // namespace simt
