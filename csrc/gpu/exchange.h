// Memory and streams of GPUs, shared with other libraries; see Exchange.
#pragma once

#include <memory>

#include "backend.h"
#include "gpu/device.h"

namespace marketplace::gpu {

std::shared_ptr<Exchange> make_exchange(std::shared_ptr<Device> leader);

}  // namespace marketplace::gpu
