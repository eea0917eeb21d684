#include "gpu/schedule.h"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

namespace marketplace::gpu {
namespace {

constexpr std::size_t kMostClasses = 8;  // launches for one product of a chunk, more or less

// Rows of a level by upstream row: rows[begin[p] .. begin[p + 1]), ordered by vendor.
struct Children {
  std::vector<std::int64_t> begin;
  std::vector<std::int32_t> rows;
};

Children children_of(const Plan::Level& level, const std::vector<char>& used,
                     std::int64_t parents) {
  Children children;
  children.begin.assign(parents + 1, 0);
  for (std::size_t r = 0; r < level.parent.size(); ++r) {
    if (!used[r]) continue;
    children.rows.push_back(static_cast<std::int32_t>(r));
    ++children.begin[level.parent[r] + 1];
  }
  for (std::int64_t p = 0; p < parents; ++p) children.begin[p + 1] += children.begin[p];
  std::stable_sort(children.rows.begin(), children.rows.end(), [&](std::int32_t a, std::int32_t b) {
    return std::pair(level.parent[a], level.vendor[a]) <
           std::pair(level.parent[b], level.vendor[b]);
  });
  return children;
}

struct Block {
  std::int64_t parents, vendors;
  Product product;
};

class Scheduler {
 public:
  Scheduler(const Plan& plan, const std::vector<std::int64_t>& capacity,
            const std::vector<std::int64_t>& leaders)
      : plan_(plan), capacity_(capacity), leaders_(leaders) {
    const auto used = used_rows(plan);
    std::int64_t parents = plan.input_count;
    for (std::size_t i = 0; i < plan.levels.size(); ++i) {
      children_.push_back(children_of(plan.levels[i], used[i], parents));
      parents = static_cast<std::int64_t>(plan.levels[i].vendor.size());
    }
  }

  Schedule run() {
    std::vector<std::int32_t> inputs(plan_.input_count);
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = static_cast<std::int32_t>(i);
    visit(0, inputs);
    return std::move(schedule_);
  }

 private:
  struct Row {
    std::int32_t row, vendor, parent;  // parent: its place in the upstream chunk
  };

  // upstream: the plan's rows that the chunk before holds, in its order.
  void visit(std::size_t level, const std::vector<std::int32_t>& upstream) {
    std::vector<Row> rows;
    const Children& children = children_[level];
    for (std::size_t p = 0; p < upstream.size(); ++p)
      for (std::int64_t c = children.begin[upstream[p]]; c < children.begin[upstream[p] + 1]; ++c)
        rows.push_back({children.rows[c], plan_.levels[level].vendor[children.rows[c]],
                        static_cast<std::int32_t>(p)});
    const auto most = static_cast<std::size_t>(capacity_[level]);
    for (std::size_t first = 0; first < rows.size(); first += most) {
      const std::size_t end = std::min(rows.size(), first + most);
      const std::vector<Row> part(rows.begin() + static_cast<std::ptrdiff_t>(first),
                                  rows.begin() + static_cast<std::ptrdiff_t>(end));
      std::vector<std::int32_t> plan_rows =
          add_chunk(level, part, static_cast<std::int64_t>(upstream.size()));
      if (level + 1 < plan_.levels.size()) visit(level + 1, plan_rows);
    }
  }

  std::vector<std::int32_t> add_chunk(std::size_t level, const std::vector<Row>& rows,
                                      std::int64_t parents) {
    Chunk chunk;
    chunk.level = static_cast<int>(level);
    chunk.rows = static_cast<std::int64_t>(rows.size());
    chunk.parents = parents;
    chunk.vendor_at = table_end();
    for (const Row& row : rows) schedule_.table.push_back(row.vendor);
    chunk.parent_at = table_end();
    for (const Row& row : rows) schedule_.table.push_back(row.parent);
    chunk.products = add_classes(merge(runs(rows)));
    chunk.apart = add_classes(singles(rows));
    chunk.own = add_classes(same_vendors(rows));
    chunk.path_at = table_end();
    for (const Row& row : rows) schedule_.table.push_back(row.row);
    for (const Row& row : rows) {
      if (leaders_[level] == row.row)
        chunk.leader = static_cast<std::int64_t>(chunk.plan_rows.size());
      chunk.plan_rows.push_back(row.row);
    }
    schedule_.chunks.push_back(chunk);
    return chunk.plan_rows;
  }

  // Neighbouring vendors on one upstream result each.
  static std::vector<Block> runs(const std::vector<Row>& rows) {
    std::vector<Block> blocks;
    for (std::size_t r = 0; r < rows.size();) {
      std::size_t end = r + 1;
      while (end < rows.size() && rows[end].parent == rows[r].parent &&
             rows[end].vendor == rows[r].vendor + static_cast<std::int32_t>(end - r))
        ++end;
      blocks.push_back({1,
                        static_cast<std::int64_t>(end - r),
                        {rows[r].parent, rows[r].vendor, static_cast<std::int32_t>(r)}});
      r = end;
    }
    return blocks;
  }

  // Neighbouring upstream results that meet the same vendors.
  static std::vector<Block> merge(const std::vector<Block>& blocks) {
    std::vector<Block> merged;
    for (const Block& block : blocks) {
      if (!merged.empty()) {
        Block& last = merged.back();
        if (last.vendors == block.vendors &&
            last.product.first_vendor == block.product.first_vendor &&
            last.product.first_parent + last.parents == block.product.first_parent) {
          ++last.parents;
          continue;
        }
      }
      merged.push_back(block);
    }
    return merged;
  }

  static std::vector<Block> singles(const std::vector<Row>& rows) {
    std::vector<Block> blocks;
    for (std::size_t r = 0; r < rows.size(); ++r)
      blocks.push_back({1, 1, {rows[r].parent, rows[r].vendor, static_cast<std::int32_t>(r)}});
    return blocks;
  }

  // Neighbouring rows of one vendor, each row being its own upstream result.
  static std::vector<Block> same_vendors(const std::vector<Row>& rows) {
    std::vector<Block> blocks;
    for (std::size_t r = 0; r < rows.size(); ++r)
      blocks.push_back(
          {1, 1, {static_cast<std::int32_t>(r), rows[r].vendor, static_cast<std::int32_t>(r)}});
    return merge(blocks);
  }

  // Blocks of few shapes: where there are too many, their lengths become powers of two.
  static std::vector<Block> cut_to_powers(const std::vector<Block>& blocks) {
    std::vector<Block> pieces;
    for (Block block : blocks)
      while (block.parents > 0) {
        Block piece = block;
        piece.parents = std::int64_t{1}
                        << (std::bit_width(static_cast<std::uint64_t>(block.parents)) - 1);
        block.parents -= piece.parents;
        block.product.first_parent += static_cast<std::int32_t>(piece.parents);
        block.product.row += static_cast<std::int32_t>(piece.parents * piece.vendors);
        pieces.push_back(piece);
      }
    return pieces;
  }

  // One vendor after another, where their numbers differ too much.
  static std::vector<Block> cut_to_vendors(const std::vector<Block>& blocks) {
    std::vector<Block> pieces;
    for (const Block& block : blocks)
      for (std::int64_t p = 0; p < block.parents; ++p)
        for (std::int64_t v = 0; v < block.vendors; ++v)
          pieces.push_back(
              {1,
               1,
               {static_cast<std::int32_t>(block.product.first_parent + p),
                static_cast<std::int32_t>(block.product.first_vendor + v),
                static_cast<std::int32_t>(block.product.row + p * block.vendors + v)}});
    return pieces;
  }

  using Shapes = std::map<std::pair<std::int64_t, std::int64_t>, std::vector<Product>>;

  static Shapes by_shape(const std::vector<Block>& blocks) {
    Shapes shapes;
    for (const Block& block : blocks)
      shapes[{block.parents, block.vendors}].push_back(block.product);
    return shapes;
  }

  std::vector<ProductClass> add_classes(const std::vector<Block>& blocks) {
    Shapes shapes = by_shape(blocks);
    if (shapes.size() > kMostClasses) shapes = by_shape(cut_to_powers(blocks));
    if (shapes.size() > 2 * kMostClasses) shapes = by_shape(cut_to_vendors(blocks));
    std::vector<ProductClass> classes;
    for (const auto& [shape, products] : shapes) {
      classes.push_back(
          {shape.first, shape.second, static_cast<std::int64_t>(products.size()), table_end()});
      for (const Product& product : products) add_product(product);
    }
    return classes;
  }

  void add_product(const Product& product) {
    for (std::int32_t entry : {product.first_parent, product.first_vendor, product.row})
      schedule_.table.push_back(entry);
  }

  std::int64_t table_end() const { return static_cast<std::int64_t>(schedule_.table.size()); }

  const Plan& plan_;
  const std::vector<std::int64_t>& capacity_;
  const std::vector<std::int64_t>& leaders_;
  std::vector<Children> children_;
  Schedule schedule_;
};

}  // namespace

Schedule make_schedule(const Plan& plan, const std::vector<std::int64_t>& capacity,
                       const std::vector<std::int64_t>& leaders) {
  return Scheduler(plan, capacity, leaders).run();
}

}  // namespace marketplace::gpu
