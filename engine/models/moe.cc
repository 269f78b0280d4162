#include "engine/models/moe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "engine/models/work_memory.h"

namespace perdure::engine {

void ChooseExperts(std::span<const float> probabilities, bool normalize, std::span<int> chosen,
                   std::span<float> weights) {
  const size_t wanted = chosen.size();
  CHECK(wanted == weights.size() && wanted > 0 && wanted <= probabilities.size());
  size_t found = 0;
  for (size_t expert = 0; expert < probabilities.size(); ++expert) {
    const float p = probabilities[expert];
    // Behind all that are as large. NaN is larger than none: it only fills up.
    size_t at = found;
    while (at > 0 && p > weights[at - 1]) --at;
    if (at == wanted) continue;
    found = std::min(found + 1, wanted);
    for (size_t i = found - 1; i > at; --i) {
      chosen[i] = chosen[i - 1];
      weights[i] = weights[i - 1];
    }
    chosen[at] = static_cast<int>(expert);
    weights[at] = p;
  }
  if (!normalize) return;
  float sum = 0.0f;
  for (float weight : weights) sum += weight;
  for (float& weight : weights) weight /= sum;
}

MoeCompute::MoeCompute(const Kernels& kernels, ThreadPool& pool, Activations activations,
                       int hidden, const ExpertsConfig& config)
    : kernels_(kernels),
      pool_(pool),
      activations_(activations),
      hidden_(hidden),
      config_(config),
      block_rows_(std::max(1, limits::kExpertSlotsMax / config.per_token)) {}

std::array<WorkArray, 6> MoeCompute::LayOut(const MoeLayer& layer, int rows) {
  const int slots = rows * config_.per_token, groups = std::min(slots, config_.count);
  const size_t packed =
      std::max({PackedRowsFloats(rows, 1, hidden_), PackedRowsFloats(slots, groups, hidden_),
                PackedRowsFloats(slots, groups, config_.feed_forward)});
  const auto n = static_cast<size_t>(rows), m = static_cast<size_t>(slots);
  return {{
      {&logits_, n * static_cast<size_t>(layer.router.padded_outputs())},
      {&weights_, m},
      {&gate_, m * static_cast<size_t>(layer.gate.padded_outputs())},
      {&up_, m * static_cast<size_t>(layer.up.padded_outputs())},
      {&out_, m * static_cast<size_t>(layer.down.padded_outputs())},
      {&packed_, packed},
  }};
}

uint64_t MoeCompute::LargestWorkBytes(const MoeLayer& layer) {
  return WorkBytes(LayOut(layer, std::min(limits::kEngineRowsMax, block_rows_)));
}

void MoeCompute::Reserve(const MoeLayer& layer, int rows) {
  if (rows <= rows_) return;
  // Powers of two: a growing batch does not allocate at every step.
  rows_ = std::min(static_cast<int>(std::bit_ceil(static_cast<unsigned>(rows))), block_rows_);
  const auto m = static_cast<size_t>(rows_) * static_cast<size_t>(config_.per_token);
  memory_ = AlignedBuffer();  // give the old one back first
  memory_ = AllocateWork(LayOut(layer, rows_));
  chosen_.resize(m);
  slot_of_.resize(m);
  slot_row_.resize(m);
}

void MoeCompute::Add(const MoeLayer& layer, const float* normed, int rows, float* x) {
  for (int row = 0; row < rows; row += block_rows_) {
    const ptrdiff_t offset = ptrdiff_t{row} * hidden_;
    AddBlock(layer, normed + offset, std::min(block_rows_, rows - row), x + offset);
  }
}

void MoeCompute::AddBlock(const MoeLayer& layer, const float* normed, int rows, float* x) {
  Reserve(layer, rows);
  Route(layer, normed, rows);
  MakeSlots(rows);
  ComputeSlots(layer, normed);
  const ptrdiff_t stride = layer.down.padded_outputs();
  pool_.Split(rows, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row)
      for (int rank = 0; rank < config_.per_token; ++rank) {
        const int pair = row * config_.per_token + rank;
        kernels_.add_scaled(x + ptrdiff_t{row} * hidden_,
                            out_ + slot_of_[static_cast<size_t>(pair)] * stride, weights_[pair],
                            static_cast<size_t>(hidden_));
      }
  });
}

void MoeCompute::Route(const MoeLayer& layer, const float* normed, int rows) {
  const int stride = layer.router.padded_outputs();
  const Product product{.matrix = &layer.router, .c = logits_, .ldc = stride};
  Multiply(kernels_, pool_, Activations::kFloat32, normed, rows, packed_, {&product, 1});
  const auto wanted = static_cast<size_t>(config_.per_token);
  pool_.Split(rows, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      float* logits = logits_ + ptrdiff_t{row} * stride;
      kernels_.softmax(logits, config_.count);
      const size_t first = static_cast<size_t>(row) * wanted;
      ChooseExperts({logits, static_cast<size_t>(config_.count)}, config_.normalize,
                    std::span(chosen_).subspan(first, wanted), {weights_ + first, wanted});
    }
  });
}

void MoeCompute::MakeSlots(int rows) {
  const int pairs = rows * config_.per_token;
  fill_.assign(static_cast<size_t>(config_.count), 0);
  for (int pair = 0; pair < pairs; ++pair)
    ++fill_[static_cast<size_t>(chosen_[static_cast<size_t>(pair)])];
  busy_.clear();
  int first = 0;
  for (int expert = 0; expert < config_.count; ++expert) {
    int& fill = fill_[static_cast<size_t>(expert)];
    if (fill > 0) busy_.push_back({expert, first, fill});
    first += std::exchange(fill, first);
  }
  for (int pair = 0; pair < pairs; ++pair) {
    const auto at = static_cast<size_t>(pair);
    const int slot = fill_[static_cast<size_t>(chosen_[at])]++;
    slot_of_[at] = slot;
    slot_row_[static_cast<size_t>(slot)] = pair / config_.per_token;
  }
}

void MoeCompute::ComputeSlots(const MoeLayer& layer, const float* normed) {
  const ptrdiff_t inner = layer.gate.padded_outputs(), outer = layer.down.padded_outputs();
  // Spans point into products_: it must not grow while they are made.
  products_.clear();
  products_.reserve(2 * busy_.size());
  groups_.clear();
  for (const Busy& busy : busy_) {
    const ptrdiff_t first = busy.first;
    products_.push_back({&layer.gate, gate_ + first * inner, inner, busy.expert});
    products_.push_back({&layer.up, up_ + first * inner, inner, busy.expert});
    groups_.push_back({.a = normed,
                       .lda = hidden_,
                       .index = &slot_row_[static_cast<size_t>(first)],
                       .rows = busy.slots,
                       .products = {products_.data() + products_.size() - 2, 2}});
  }
  Multiply(kernels_, pool_, activations_, groups_, packed_);

  const int slots = busy_.back().first + busy_.back().slots;
  pool_.Split(slots, [&](int begin, int end, int) {
    for (int slot = begin; slot < end; ++slot)
      kernels_.silu_mul(gate_ + slot * inner, up_ + slot * inner,
                        static_cast<size_t>(config_.feed_forward));
  });

  products_.clear();
  groups_.clear();
  for (const Busy& busy : busy_) {
    const ptrdiff_t first = busy.first;
    products_.push_back({&layer.down, out_ + first * outer, outer, busy.expert});
    groups_.push_back({.a = gate_ + first * inner,
                       .lda = inner,
                       .index = nullptr,
                       .rows = busy.slots,
                       .products = {&products_.back(), 1}});
  }
  Multiply(kernels_, pool_, activations_, groups_, packed_);
}

}  // namespace perdure::engine
