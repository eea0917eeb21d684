// The two halves of the optimizer's bindings.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>

#include "market/optimizer.h"

namespace marketplace::bindings {

using OptimizerClass = pybind11::class_<Optimizer, std::shared_ptr<Optimizer>>;

void bind_optimizer_state(OptimizerClass& optimizer);

// work() while no other thread calls the optimizer. Without the GIL, which the other may want.
template <class Work>
auto alone(const Optimizer& self, Work work) {
  const pybind11::gil_scoped_release release;
  const std::lock_guard lock(self.access());
  return work();
}

}  // namespace marketplace::bindings
