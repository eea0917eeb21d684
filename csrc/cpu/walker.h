// One thread's walk: depth first through the rows below one root, on one tile after another.
#pragma once

#include "cpu/executor.h"

namespace marketplace::cpu {

class Walker {
 public:
  Walker(CpuExecutor& executor, const Job& job, int thread, const Schedule::Task& task)
      : executor_(executor), job_(job), workspace_(*executor.workspaces_[thread]), task_(task) {}

  void run();

 private:
  struct Range {
    std::int64_t first, last;
  };

  // Of a row, as far as they are the task's; places among Schedule::Children::rows.
  Range children_of(std::size_t level, std::int64_t row) const;
  void visit(std::size_t level, std::int64_t row, const std::byte* in);
  void visit_children(std::size_t level, std::int64_t row, const std::byte* in);
  void visit_head(std::size_t level, std::int64_t row, const std::byte* in);

  CpuExecutor& executor_;
  const Job& job_;
  CpuExecutor::Workspace& workspace_;
  const Schedule::Task& task_;
  std::int64_t first_ = 0, count_ = 0;  // the tile
};

}  // namespace marketplace::cpu
