// From the losses of all paths to V numbers per spec: all that an update needs to know.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace marketplace {

enum class PlanKind { tree, star, scatter, node };
enum class UnitVectorMode { per_spec, whole };

// How losses become scores, the higher the better. z: -(loss - mean) / std with the sample standard
// deviation. rank: from 0.5 for the lowest loss to -0.5 for the highest in equal steps, equal
// losses sharing the mean of theirs (as Salimans et al. 2017).
// sign: of median - loss.
enum class Shaping { z, rank, sign };

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

// Scores of a tree or a scatter: over all paths (of a scatter, one per sample). Star: `whole` mode
// over all paths; `per_spec` over the paths that deviate at that spec, and the leader's.
// losses (P,), paths (P, S), checked as by check_losses.
Coefficients direction_coefficients(PlanKind plan, UnitVectorMode mode, Shaping shaping,
                                    const std::vector<float>& losses,
                                    const std::vector<std::int32_t>& paths,
                                    const std::vector<std::int64_t>& vendor_counts);

}  // namespace marketplace
