// From the losses of all paths to V numbers per spec: all that an update needs to know.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend.h"

namespace marketplace {

enum class PlanKind { tree, star, scatter, node };
enum class UnitVectorMode { per_spec, whole };

PlanKind plan_kind(const std::string& name);
std::string plan_name(PlanKind plan);
UnitVectorMode unit_vector_mode(const std::string& name);
Shaping shaping_kind(const std::string& name);
std::string shaping_name(Shaping shaping);

struct Coefficients {
  // values[i][v] = sum of the scores over the paths through vendor v of spec i, rounded to float32:
  // these numbers are the step, so a log that keeps them in four bytes each can repeat it to the
  // bit
  std::vector<std::vector<double>> values;
  bool degenerate = false;  // all losses equal somewhere: those scores are zero
};

// Throws unless losses (P,) are finite, naming the paths that are not, and paths (P, S) fit.
void check_losses(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                  const std::vector<std::int64_t>& vendor_counts);

// A tree or a scatter is scored over all paths (of a scatter, one per sample). Star: `whole` mode
// over all paths; `per_spec` over the paths that deviate at that spec, and the leader's.
// paths (P, S).
std::vector<ScoreGroup> score_groups(PlanKind plan, UnitVectorMode mode,
                                     const std::vector<std::int32_t>& paths,
                                     const std::vector<std::int64_t>& vendor_counts);

// losses (P,), paths (P, S), checked as by check_losses.
Coefficients direction_coefficients(PlanKind plan, UnitVectorMode mode, Shaping shaping,
                                    const std::vector<float>& losses,
                                    const std::vector<std::int32_t>& paths,
                                    const std::vector<std::int64_t>& vendor_counts);

}  // namespace marketplace
