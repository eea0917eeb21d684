// What a step does to the vectors of a team, as tasks for all of its devices; see Backend for what
// each computes. None is empty.
#pragma once

#include <vector>

#include "backend.h"
#include "gpu/team.h"

namespace marketplace::gpu {

void combine(Team& team, const Model& model, const VendorWeights& weights,
             const std::vector<double>& coefficients, Vector& out);
// The same of seeded vendors whose coefficients (V,) are on the devices, there[d] on device d.
void combine(Team& team, const Model& model, const VendorWeights& weights,
             const std::vector<const float*>& there, Vector& out);
void add_scaled(Team& team, Vector& target, const Vector& values, float scale);
void decay_add(Team& team, Vector& target, float decay, const Vector& values);
void adam(Team& team, Vector& direction, Vector& mean, Vector& square, const AdamStep& step);

// Those of `vectors` that are not empty.
void normalise(Team& team, Directions& vectors, bool together);
void clip(Team& team, Directions& vectors, bool together, float length);

std::int64_t first_not_finite(Team& team, const Directions& vectors);

}  // namespace marketplace::gpu
