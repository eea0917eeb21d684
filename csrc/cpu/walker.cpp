#include "cpu/walker.h"

#include <algorithm>

namespace marketplace::cpu {

void Walker::run() {
  const std::int64_t end = job_.chunk_begin(task_.chunk + 1);
  const std::int64_t input = job_.plan.levels[0].parent[task_.root];
  for (first_ = job_.chunk_begin(task_.chunk); first_ < end; first_ += count_) {
    count_ = std::min(job_.tile, end - first_);
    std::byte* in = workspace_.input.get();
    executor_.load_samples(job_.batch, input * job_.batch.size + first_, count_, in);
    visit(0, task_.root, in);
  }
}

void Walker::visit(std::size_t level, std::int64_t row, const std::byte* in) {
  const std::size_t levels = job_.plan.levels.size();
  RunArgs args;
  args.samples = count_;
  args.in = in;
  args.out = workspace_.activations[level].get();
  args.inference = job_.inference;
  const bool leads = level > 0 || task_.leads;  // a root that several tasks run speaks once
  if (job_.leader && leads && job_.schedule->leader_row[level] == row)
    args.leader = &(*job_.leader)[level];
  executor_.run_vendor(workspace_, level, job_.weights, job_.plan.levels[level].vendor[row], args);
  if (level + 1 == levels) {
    const auto* values = reinterpret_cast<const float*>(args.out);
    return job_.sink.take(row, first_, count_, values, executor_.programs_[level].output_size);
  }
  if (level + 2 == levels && executor_.wide_)
    visit_head(level, row, args.out);
  else
    visit_children(level, row, args.out);
}

Walker::Range Walker::children_of(std::size_t level, std::int64_t row) const {
  if (level == 0) return {task_.first_child, task_.last_child};
  const std::vector<std::int64_t>& begin = job_.schedule->children[level].begin;
  return {begin[row], begin[row + 1]};
}

void Walker::visit_children(std::size_t level, std::int64_t row, const std::byte* in) {
  const Schedule::Children& children = job_.schedule->children[level];
  const auto [first, last] = children_of(level, row);
  for (std::int64_t c = first; c < last; ++c)
    if (job_.schedule->used[level + 1][children.rows[c]]) visit(level + 1, children.rows[c], in);
}

// Runs of consecutive vendors among the children, each as one wide product.
void Walker::visit_head(std::size_t level, std::int64_t row, const std::byte* in) {
  const Schedule::Children& children = job_.schedule->children[level];
  const std::vector<std::int32_t>& vendor = job_.plan.levels[level + 1].vendor;
  const WideHead& head = *executor_.head_;
  const std::int64_t outputs = executor_.programs_[level + 1].output_size;
  const std::int64_t most = head.run_vendors(job_.tile);
  const auto [begin, end] = children_of(level, row);
  for (std::int64_t c = begin; c < end;) {
    const std::int64_t first = vendor[children.rows[c]];
    std::int64_t count = 1;
    while (count < most && c + count < end && vendor[children.rows[c + count]] == first + count)
      ++count;
    const WideHead::Result result =
        head.run(executor_.panels_[level + 1].get(), job_.weights[level + 1].count, first,
                 first + count, in, count_, reinterpret_cast<float*>(workspace_.logits.get()));
    for (std::int64_t i = 0; i < count; ++i)
      job_.sink.take(children.rows[c + i], first_, count_, result.logits + i * outputs,
                     result.stride);
    c += count;
  }
}

}  // namespace marketplace::cpu
