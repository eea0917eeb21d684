#include "gpu/memory.h"
#include "gpu/scorer.h"
#include "gpu/table_block.h"

namespace marketplace::gpu {
Scorer::Scorer(std::shared_ptr<Team> team, Scoring scoring, const std::vector<Part>& parts)
    : team_(std::move(team)), scoring_(std::move(scoring)), number_(unique_number()) {
  for (const Part& part : parts) {
    paths_.push_back(part.paths);
    part_first_.push_back(loss_count_);
    loss_count_ += static_cast<std::int64_t>(part.paths.size()) + 1;
  }
  for (const std::int64_t count : scoring_.vendor_counts) {
    spec_first_.push_back(coefficient_count_);
    coefficient_count_ += count;
  }
  const std::vector<std::byte> tables = make_tables();
  Extent extent;
  extent.add(static_cast<std::int64_t>(tables.size()));
  places_.losses = extent.add(loss_count_ * 4);
  places_.moments = extent.add(static_cast<std::int64_t>(scoring_.groups.size()) * 16);
  places_.scores = extent.add(entry_count_ * 8);
  places_.coefficients = extent.add(coefficient_count_ * 4);
  places_.verdict = extent.add(static_cast<std::int64_t>(sizeof(Verdict)));
  for (std::size_t d = 0; d < team_->size(); ++d) {
    const Stream& stream = team_->stream(d);
    memory_.push_back(team_->device(d)->pool.allocate(extent.bytes(), stream));
    copy_to_device_now(memory_[d].get(), tables.data(), static_cast<std::int64_t>(tables.size()),
                       stream);
  }
}

bool Scorer::serves(const Scoring& scoring, const std::vector<Part>& parts) const {
  if (scoring != scoring_ || parts.size() != paths_.size()) return false;
  for (std::size_t k = 0; k < parts.size(); ++k)
    if (parts[k].paths != paths_[k]) return false;
  return true;
}

std::vector<std::byte> Scorer::make_tables() {
  std::vector<std::byte> block;
  make_entries(block);
  make_terms(block);
  return block;
}

void Scorer::make_entries(std::vector<std::byte>& block) {
  std::vector<std::int32_t> place(scoring_.paths.size() / scoring_.vendor_counts.size());
  for (std::size_t k = 0; k < paths_.size(); ++k)
    for (std::size_t p = 0; p < paths_[k].size(); ++p)
      place[paths_[k][p]] =
          static_cast<std::int32_t>(part_first_[k]) + static_cast<std::int32_t>(p);
  std::vector<std::int32_t> entries, group_of, group_first{0}, must_differ;
  for (const ScoreGroup& group : scoring_.groups) {
    for (const std::int32_t path : group.paths) entries.push_back(place[path]);
    group_of.resize(entries.size(), static_cast<std::int32_t>(must_differ.size()));
    group_first.push_back(static_cast<std::int32_t>(entries.size()));
    must_differ.push_back(group.must_differ ? 1 : 0);
  }
  entry_count_ = static_cast<std::int64_t>(entries.size());
  places_.entries = append_table(block, entries);
  places_.group_of = append_table(block, group_of);
  places_.group_first = append_table(block, group_first);
  places_.must_differ = append_table(block, must_differ);
}

// Per vendor of every spec, the entries of its paths in the spec's group, in ascending order.
void Scorer::make_terms(std::vector<std::byte>& block) {
  const std::size_t depth = scoring_.vendor_counts.size();
  std::vector<std::int32_t> terms, term_first{0};
  std::int32_t first = 0;  // entry of the spec's group
  for (std::size_t i = 0; i < depth; ++i) {
    const bool own_group = scoring_.groups.size() > 1;
    const ScoreGroup& group = scoring_.groups[own_group ? i : 0];
    std::vector<std::vector<std::int32_t>> of_vendor(scoring_.vendor_counts[i]);
    for (std::size_t p = 0; p < group.paths.size(); ++p)
      of_vendor[scoring_.paths[group.paths[p] * depth + i]].push_back(first +
                                                                      static_cast<std::int32_t>(p));
    for (const auto& entries : of_vendor) {
      terms.insert(terms.end(), entries.begin(), entries.end());
      term_first.push_back(static_cast<std::int32_t>(terms.size()));
    }
    if (own_group) first += static_cast<std::int32_t>(group.paths.size());
  }
  places_.terms = append_table(block, terms);
  places_.term_first = append_table(block, term_first);
}

float* Scorer::losses(std::size_t device, std::size_t part) const {
  return at<float>(device, places_.losses) + part_first_[part];
}

std::vector<const float*> Scorer::coefficients(std::size_t spec) const {
  std::vector<const float*> there;
  for (std::size_t d = 0; d < memory_.size(); ++d)
    there.push_back(at<float>(d, places_.coefficients) + spec_first_[spec]);
  return there;
}

std::vector<const Verdict*> Scorer::verdicts() const {
  std::vector<const Verdict*> there;
  for (std::size_t d = 0; d < memory_.size(); ++d) there.push_back(at<Verdict>(d, places_.verdict));
  return there;
}

ScoreArgs Scorer::arguments(std::size_t device) const {
  ScoreArgs args;
  args.shaping = scoring_.shaping;
  args.losses = at<float>(device, places_.losses);
  args.loss_count = loss_count_;
  args.entries = at<std::int32_t>(device, places_.entries);
  args.group_of = at<std::int32_t>(device, places_.group_of);
  args.group_first = at<std::int32_t>(device, places_.group_first);
  args.must_differ = at<std::int32_t>(device, places_.must_differ);
  args.entry_count = entry_count_;
  args.group_count = static_cast<std::int64_t>(scoring_.groups.size());
  args.terms = at<std::int32_t>(device, places_.terms);
  args.term_first = at<std::int32_t>(device, places_.term_first);
  args.coefficient_count = coefficient_count_;
  args.moments = at<double>(device, places_.moments);
  args.scores = at<double>(device, places_.scores);
  args.coefficients = at<float>(device, places_.coefficients);
  args.verdict = at<Verdict>(device, places_.verdict);
  return args;
}

// Every device takes what the others have published; who publishes again comes behind that.
void Scorer::exchange() const {
  for (std::size_t from = 0; from < paths_.size(); ++from)
    for (std::size_t to = 0; to < memory_.size(); ++to) {
      if (to == from) continue;
      follow(team_->stream(to), team_->stream(from));
      copy_peer(losses(to, from), team_->device(to)->index, losses(from),
                team_->device(from)->index,
                (static_cast<std::int64_t>(paths_[from].size()) + 1) * 4, team_->stream(to));
      follow(team_->stream(from), team_->stream(to));
    }
}

void Scorer::add_tasks() const {
  if (memory_.size() > 1) team_->meet([this] { exchange(); });
  Task task;
  task.key = {number_};
  task.launch = [this](const OnDevice& place) {
    score_losses_gpu(arguments(place.device), place.stream);
  };
  team_->add(std::move(task));
}

}  // namespace marketplace::gpu
