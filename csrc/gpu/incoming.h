// What a call has in devices' memory already: brought into its block there, and checked.
#pragma once

#include <vector>

#include "gpu/device.h"
#include "gpu/kernels/incoming.h"
#include "gpu/session.h"

namespace marketplace::gpu {

// `upload`, `report`: on the device.
struct IncomingPlaces {
  std::byte* upload = nullptr;
  IncomingReport* report = nullptr;
};
void bring_incoming(const Request& request, const Session& session, const IncomingPlaces& places,
                    std::int64_t classes, const Stream& stream);

// Throws what a report on the host tells. order: which sample each of the inputs is, where they are
// samples.
void check_incoming(const Session& session, const IncomingReport& report,
                    const std::vector<Program>& programs, const std::byte* upload,
                    const std::vector<std::int64_t>* order, const Stream& stream);

// Whether the device looks at the samples' values.
bool checks_values(const Signature& signature);

// Samples in another order, on `device`, in the order of its stream in Doors.
DeviceMemory gather_samples(const Batch& batch, const std::vector<std::int64_t>& order,
                            Device& device);

}  // namespace marketplace::gpu
