// ldmatrix and mma.sync. Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "...
// mma.m16n8k8", "Warp-level matrix load instruction: ldmatrix".
#include <bit>
#include <cstring>

#include "memory.h"
#include "operations.h"

namespace ptx {
namespace {

void require_all_lanes(Warp& warp, const Instruction& instruction) {
  if (warp.active != kAllLanes) fail(warp, instruction, -1, "some lanes are not here");
}

// Lane l names row l % 8 of matrix l / 8; it is given word l % 4 of row l / 4 of each.
void load_matrices(Warp& warp, const Instruction& instruction) {
  require_all_lanes(warp, instruction);
  std::uint64_t addresses[kLanes];
  std::uint32_t rows[kLanes][4];
  for (int lane = 0; lane < kLanes; ++lane) {
    addresses[lane] = address_of(warp, instruction, 0, lane);
    std::memcpy(rows[lane], find_shared(warp, instruction, lane, addresses[lane], 16), 16);
    watch_shared(warp, instruction, lane, addresses[lane], 16, false);
  }
  for (int matrix = 0; matrix < 4; ++matrix)
    for (int lane = 0; lane < kLanes; ++lane)
      warp.lanes<std::uint32_t>(instruction, 1 + matrix)[lane] =
          rows[matrix * 8 + lane / 4][lane % 4];
  count_shared(instruction, addresses, kAllLanes, 16);
}

constexpr int kRows = 16, kColumns = 8;

struct BFloat16Tile {
  static constexpr int kDepth = 16;
  static constexpr int kPerWord = 2;
  static float element(std::uint32_t word, int i) {
    return std::bit_cast<float>(i == 0 ? word << 16 : word & 0xFFFF0000u);
  }
};

struct Tf32Tile {
  static constexpr int kDepth = 8;
  static constexpr int kPerWord = 1;
  static float element(std::uint32_t word, int) {
    return std::bit_cast<float>(word & 0xFFFFE000u);  // the rest is not looked at
  }
};

// Word w of a lane of A: row g, g + 8 for odd w; k from t words, 4 words on for w >= 2. Word w of
// B: column g, k from t + 4 w words. g = lane / 4, t = lane % 4.
template <class Tile>
void read_operands(Warp& warp, const Instruction& instruction, float (&a)[kRows][Tile::kDepth],
                   float (&b)[Tile::kDepth][kColumns]) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, thread = lane % 4;
    for (int word = 0; word < 4; ++word) {
      const std::uint32_t bits = warp.lanes<std::uint32_t>(instruction, 4 + word)[lane];
      for (int i = 0; i < Tile::kPerWord; ++i)
        a[group + word % 2 * 8][(thread + word / 2 * 4) * Tile::kPerWord + i] =
            Tile::element(bits, i);
    }
    for (int word = 0; word < 2; ++word) {
      const std::uint32_t bits = warp.lanes<std::uint32_t>(instruction, 8 + word)[lane];
      for (int i = 0; i < Tile::kPerWord; ++i)
        b[(thread + word * 4) * Tile::kPerWord + i][group] = Tile::element(bits, i);
    }
  }
}

// Value i of a lane of C: row g, g + 8 for i >= 2; column 2 t + i % 2.
float& accumulator(float (&c)[kRows][kColumns], int lane, int i) {
  return c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

template <class Tile>
void multiply(Warp& warp, const Instruction& instruction) {
  require_all_lanes(warp, instruction);
  float a[kRows][Tile::kDepth], b[Tile::kDepth][kColumns], c[kRows][kColumns];
  read_operands<Tile>(warp, instruction, a, b);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      accumulator(c, lane, i) = warp.lanes<float>(instruction, 10 + i)[lane];
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < Tile::kDepth; ++k)
      for (int column = 0; column < kColumns; ++column) c[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      warp.lanes<float>(instruction, i)[lane] = canonical(accumulator(c, lane, i));
}

}  // namespace

void add_matrices(Operations& operations) {
  operations["ldmatrix.sync.aligned.m8n8.x4.shared.b16"] = load_matrices;
  operations["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = multiply<BFloat16Tile>;
  operations["mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"] = multiply<Tf32Tile>;
}

}  // namespace ptx
