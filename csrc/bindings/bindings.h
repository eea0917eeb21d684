// The parts of the module. Only this folder includes pybind11.
#pragma once

#include <pybind11/pybind11.h>

#include "backend.h"

namespace marketplace::bindings {

void bind_graph(pybind11::module_& module);
void bind_device_tensor(pybind11::module_& module);
void bind_market(pybind11::module_& module);
void bind_optimizer(pybind11::module_& module);

// A plan, and whether its inputs come stacked: (U, B, ...) instead of (B, ...).
struct BoundPlan {
  Plan plan;
  bool stacked = false;
};

}  // namespace marketplace::bindings
