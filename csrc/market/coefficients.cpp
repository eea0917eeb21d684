#include "market/coefficients.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/lane_sum.h"

namespace marketplace {
namespace {

std::string path_text(const std::int32_t* path, std::size_t depth) {
  std::string text = "(";
  for (std::size_t i = 0; i < depth; ++i) text += (i ? ", " : "") + std::to_string(path[i]);
  return text + ")";
}

constexpr std::size_t kPathsNamed = 5;

// Names the paths whose losses are not finite, or the first few and the number of the rest.
void refuse_losses(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                   std::size_t depth) {
  std::string text;
  std::size_t count = 0;
  for (std::size_t p = 0; p < losses.size(); ++p) {
    if (std::isfinite(losses[p]) || ++count > kPathsNamed) continue;
    text += (count > 1 ? ", " : "") + std::to_string(losses[p]) + " at path " +
            path_text(paths.data() + p * depth, depth);
  }
  if (count > kPathsNamed) text += " and " + std::to_string(count - kPathsNamed) + " more";
  if (count > 0) fail("step", "finite losses", text);
}

using Rows = std::vector<std::int32_t>;

void z_scores(const std::vector<float>& losses, const Rows& rows, std::vector<double>& scores) {
  const auto count = static_cast<std::int64_t>(rows.size());
  const auto loss = [&](std::int64_t i) { return static_cast<double>(losses[rows[i]]); };
  const double mean = lane_sum(count, loss) / static_cast<double>(count);
  const double squares =
      lane_sum(count, [&](std::int64_t i) { return (loss(i) - mean) * (loss(i) - mean); });
  const double deviation = count > 1 ? std::sqrt(squares / static_cast<double>(count - 1)) : 0;
  for (const std::int32_t p : rows) scores[p] = deviation > 0 ? -(losses[p] - mean) / deviation : 0;
}

// The rows from the lowest loss to the highest.
Rows ascending(const std::vector<float>& losses, Rows rows) {
  std::stable_sort(rows.begin(), rows.end(),
                   [&](std::int32_t a, std::int32_t b) { return losses[a] < losses[b]; });
  return rows;
}

void rank_scores(const std::vector<float>& losses, const Rows& rows, std::vector<double>& scores) {
  const Rows order = ascending(losses, rows);
  const auto last = static_cast<double>(std::max<std::size_t>(order.size() - 1, 1));
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    while (end < order.size() && losses[order[end]] == losses[order[first]]) ++end;
    // twice the mean rank of first .. end - 1, less the middle: whole numbers until the division
    const double twice =
        static_cast<double>(order.size() - 1) - static_cast<double>(first + end - 1);
    for (std::size_t i = first; i < end; ++i) scores[order[i]] = twice / (2 * last);
  }
}

void sign_scores(const std::vector<float>& losses, const Rows& rows, std::vector<double>& scores) {
  const Rows order = ascending(losses, rows);
  const double low = losses[order[(order.size() - 1) / 2]], high = losses[order[order.size() / 2]];
  const double median = (low + high) / 2;
  for (const std::int32_t p : rows) scores[p] = (losses[p] < median) - (losses[p] > median);
}

void best_scores(const std::vector<float>& losses, const Rows& rows, std::vector<double>& scores) {
  for (const std::int32_t p : rows) scores[p] = 0;
  const auto lower = [&](std::int32_t a, std::int32_t b) { return losses[a] < losses[b]; };
  scores[*std::min_element(rows.begin(), rows.end(), lower)] = 1;
}

// Scores over the chosen rows; all zero, and false, when their losses do not differ.
bool score(Shaping shaping, const std::vector<float>& losses, const Rows& rows,
           std::vector<double>& scores) {
  if (rows.empty()) return false;  // a star's given paths need not tell of every spec
  switch (shaping) {
    case Shaping::z: z_scores(losses, rows, scores); break;
    case Shaping::rank: rank_scores(losses, rows, scores); break;
    case Shaping::sign: sign_scores(losses, rows, scores); break;
    case Shaping::best: best_scores(losses, rows, scores); break;
  }
  return std::any_of(rows.begin(), rows.end(), [&](std::int32_t p) { return scores[p] != 0; });
}

// The rows of a star that say something about spec i: the leader's path and the deviations there.
Rows star_rows(const std::vector<std::int32_t>& paths, std::size_t depth, std::size_t spec) {
  Rows rows;
  for (std::size_t p = 0; p < paths.size() / depth; ++p) {
    bool informs = true;
    for (std::size_t i = 0; i < depth; ++i)
      if (i != spec && paths[p * depth + i] != 0) informs = false;
    if (informs) rows.push_back(static_cast<std::int32_t>(p));
  }
  return rows;
}

}  // namespace

void check_losses(const std::vector<float>& losses, const std::vector<std::int32_t>& paths,
                  const std::vector<std::int64_t>& vendor_counts) {
  const std::size_t depth = vendor_counts.size();
  if (losses.empty() || paths.size() != losses.size() * depth)
    fail("step", "losses (P,) and paths (P, " + std::to_string(depth) + ")",
         std::to_string(losses.size()) + " losses and " + std::to_string(paths.size()) +
             " path entries");
  for (std::size_t p = 0; p < losses.size(); ++p) {
    const std::int32_t* path = paths.data() + p * depth;
    for (std::size_t i = 0; i < depth; ++i)
      if (path[i] < 0 || path[i] >= vendor_counts[i])
        fail("step",
             "vendors of spec " + std::to_string(i) + " below " + std::to_string(vendor_counts[i]),
             "path " + path_text(path, depth));
  }
  refuse_losses(losses, paths, depth);
}

PlanKind plan_kind(const std::string& name) {
  if (name == "tree") return PlanKind::tree;
  if (name == "star") return PlanKind::star;
  if (name == "scatter") return PlanKind::scatter;
  if (name == "node") return PlanKind::node;
  fail("plan", "'tree', 'star', 'scatter' or 'node'", "'" + name + "'");
}

std::string plan_name(PlanKind plan) {
  switch (plan) {
    case PlanKind::tree: return "tree";
    case PlanKind::star: return "star";
    case PlanKind::scatter: return "scatter";
    case PlanKind::node: return "node";
  }
  return "?";
}

UnitVectorMode unit_vector_mode(const std::string& name) {
  if (name == "per_spec") return UnitVectorMode::per_spec;
  if (name == "whole") return UnitVectorMode::whole;
  fail("unit_vector_mode", "'per_spec' or 'whole'", "'" + name + "'");
}

Shaping shaping_kind(const std::string& name) {
  if (name == "z") return Shaping::z;
  if (name == "rank") return Shaping::rank;
  if (name == "sign") return Shaping::sign;
  fail("shaping", "'z', 'rank' or 'sign'", "'" + name + "'");
}

std::string shaping_name(Shaping shaping) {
  switch (shaping) {
    case Shaping::z: return "z";
    case Shaping::rank: return "rank";
    case Shaping::sign: return "sign";
    case Shaping::best: return "best";
  }
  return "?";
}

std::vector<ScoreGroup> score_groups(PlanKind plan, UnitVectorMode mode,
                                     const std::vector<std::int32_t>& paths,
                                     const std::vector<std::int64_t>& vendor_counts) {
  const std::size_t depth = vendor_counts.size();
  std::vector<ScoreGroup> groups;
  if (plan != PlanKind::star || mode != UnitVectorMode::per_spec) {
    Rows all(paths.size() / depth);
    std::iota(all.begin(), all.end(), 0);
    groups.push_back({std::move(all), true});
    return groups;
  }
  // a spec with the leader alone has nothing to say, which is no fault
  for (std::size_t i = 0; i < depth; ++i)
    groups.push_back({star_rows(paths, depth, i), vendor_counts[i] > 1});
  return groups;
}

Coefficients direction_coefficients(PlanKind plan, UnitVectorMode mode, Shaping shaping,
                                    const std::vector<float>& losses,
                                    const std::vector<std::int32_t>& paths,
                                    const std::vector<std::int64_t>& vendor_counts) {
  check_losses(losses, paths, vendor_counts);
  const std::size_t depth = vendor_counts.size();
  const std::vector<ScoreGroup> groups = score_groups(plan, mode, paths, vendor_counts);
  Coefficients out;
  std::vector<double> scores(losses.size(), 0.0);
  for (std::size_t i = 0; i < depth; ++i) {
    const ScoreGroup& group = groups[groups.size() > 1 ? i : 0];
    const bool scored = i > 0 && groups.size() == 1;
    if (!scored && !score(shaping, losses, group.paths, scores) && group.must_differ)
      out.degenerate = true;
    std::vector<LaneSum> sums(vendor_counts[i]);
    for (const std::int32_t p : group.paths) sums[paths[p * depth + i]].add(scores[p]);
    out.values.emplace_back();
    for (const LaneSum& sum : sums) out.values.back().push_back(static_cast<float>(sum.total()));
  }
  return out;
}

}  // namespace marketplace
