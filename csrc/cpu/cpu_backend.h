// The CPU as a backend.
#pragma once

#include <memory>

#include "backend.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"

namespace marketplace::cpu {

// threads 0: every core that this process may use.
std::shared_ptr<Backend> make_cpu_backend(DType dtype, int threads);

}  // namespace marketplace::cpu
