#include "engine/models/decoder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/check.h"
#include "base/limits.h"
#include "engine/kv_write.h"
#include "engine/models/decoder_buffers.h"
#include "engine/models/work_memory.h"

namespace perdure::engine {
namespace {

int Padded(int outputs) { return (outputs + kPanelWidth - 1) / kPanelWidth * kPanelWidth; }

}  // namespace

std::vector<WorkArray> Decoder::LayOut(Buffers* buffers, int rows) const {
  Buffers& b = *buffers;
  const ModelConfig& c = spec_.config;
  const int q_size = c.heads * c.head_dim, kv_size = c.kv_heads * c.head_dim;
  const auto n = static_cast<size_t>(rows);
  b.scratch_floats = std::max(AttentionScratchFloats(c.head_dim), size_t(c.hidden_size));
  b.scratch_floats = (b.scratch_floats + 15) / 16 * 16;
  // Layers of experts have buffers of their own (MoeCompute).
  const int inner = HasDenseLayers() ? c.feed_forward : 0;
  const size_t packed =
      std::max({PackedRowsFloats(rows, 1, c.hidden_size), PackedRowsFloats(rows, 1, q_size),
                PackedRowsFloats(rows, 1, inner)});
  return {
      {&b.x, n * size_t(c.hidden_size)},
      {&b.normed, n * size_t(c.hidden_size)},
      {&b.q, n * size_t(Padded(q_size))},
      {&b.k, n * size_t(Padded(kv_size))},
      {&b.v, n * size_t(Padded(kv_size))},
      {&b.attended, n * size_t(q_size)},
      {&b.out, n * size_t(Padded(c.hidden_size))},
      {&b.gate, n * size_t(Padded(inner))},
      {&b.up, n * size_t(Padded(inner))},
      {&b.packed, packed},
      {&b.cosines, n * size_t(c.head_dim / 2)},
      {&b.sines, n * size_t(c.head_dim / 2)},
      {&b.scratch, size_t(pool_.threads()) * b.scratch_floats},
  };
}

uint64_t Decoder::LargestWorkBytes() {
  Buffers none;
  const uint64_t bytes = WorkBytes(LayOut(&none, limits::kEngineRowsMax));
  if (moe_)
    for (const DecoderLayer& layer : layers_)
      if (layer.experts) return bytes + moe_->LargestWorkBytes(*layer.experts);
  return bytes;
}

void Decoder::Reserve(int rows, size_t logits_rows) {
  Buffers& b = *buffers_;
  const ModelConfig& c = spec_.config;
  if (rows > b.rows) {
    // Powers of two: a growing batch does not allocate at every step.
    b.rows = std::min(static_cast<int>(std::bit_ceil(static_cast<unsigned>(rows))),
                      limits::kEngineRowsMax);
    const std::vector<WorkArray> arrays = LayOut(&b, b.rows);
    b.memory = AlignedBuffer();  // give the old one back first
    b.memory = AllocateWork(arrays);
  }
  if (logits_rows > b.logits_rows) {
    b.logits_rows = std::bit_ceil(logits_rows);
    b.logits = AlignedBuffer();
    float* at = nullptr;
    const WorkArray logits{&at, b.logits_rows * size_t(Padded(c.vocab_size))};
    b.logits = AllocateWork({&logits, 1});
  }
}

std::span<const float> Decoder::Step(std::span<const SequenceStep> sequences) {
  const ModelConfig& c = spec_.config;
  rows_.clear();
  size_t logits_rows = 0;
  for (const SequenceStep& sequence : sequences) {
    const int count = static_cast<int>(sequence.tokens.size());
    CHECK(sequence.start >= 0 && sequence.logits_from >= 0);
    CHECK(static_cast<size_t>(KvShape::PagesFor(sequence.start + count)) <=
          sequence.kv.pages.size());
    CHECK(sequence.kv.precisions.empty() ||
          sequence.kv.precisions.size() == sequence.kv.pages.size());
    for (const KvRetention& retention : sequence.kv.retentions)
      CHECK(retention.size == 0 || (retention.keep >= 0 && retention.keep < retention.size));
    for (int i = 0; i < count; ++i) {
      const TokenId token = sequence.tokens[static_cast<size_t>(i)];
      CHECK(token >= 0 && token < c.vocab_size);
      const bool wants_logits = i >= sequence.logits_from;
      logits_rows += wants_logits;
      rows_.push_back({&sequence, token, sequence.start + i, wants_logits});
    }
  }
  if (rows_.empty()) return {};
  constexpr size_t kPassRows = limits::kEngineRowsMax;
  Reserve(static_cast<int>(std::min(rows_.size(), kPassRows)), logits_rows);

  size_t logits_done = 0;
  for (size_t begin = 0; begin < rows_.size(); begin += kPassRows) {
    const auto rows =
        std::span<const Row>(rows_).subspan(begin, std::min(kPassRows, rows_.size() - begin));
    Pass(rows, logits_done);
    logits_done += static_cast<size_t>(
        std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.wants_logits; }));
  }

  if (mapped_) mapped_->StartCheck();

  // Rows were computed at a padded stride: close the gaps.
  float* logits = buffers_->logits.as<float>();
  const auto vocab = static_cast<size_t>(c.vocab_size), stride = size_t(Padded(c.vocab_size));
  if (stride != vocab)
    for (size_t row = 1; row < logits_rows; ++row)
      std::memmove(logits + row * vocab, logits + row * stride, vocab * sizeof(float));
  return {logits, logits_rows * vocab};
}

void Decoder::Pass(std::span<const Row> rows, size_t logits_row) {
  const ModelConfig& c = spec_.config;
  Buffers& b = *buffers_;
  const int count = static_cast<int>(rows.size());
  const ptrdiff_t hidden = c.hidden_size, half = c.head_dim / 2;

  // Runs of consecutive positions: as long as a page for storing, as a tile for attention.
  const int group = c.heads / c.kv_heads;
  const int tile_rows = std::max(1, kAttentionQueries / group);
  store_runs_.clear();
  attend_runs_.clear();
  for (int i = 0; i < count; ++i) {
    const Row& row = rows[static_cast<size_t>(i)];
    const auto extend = [&](std::vector<Run>& runs, auto&& may_grow) {
      if (i > 0 && runs.back().sequence == row.sequence && may_grow(runs.back()))
        ++runs.back().rows;
      else
        runs.push_back({row.sequence, i, 1, row.position});
    };
    extend(store_runs_,
           [&](const Run& run) { return run.start / kPageTokens == row.position / kPageTokens; });
    extend(attend_runs_, [&](const Run& run) {
      const KvView& kv = row.sequence->kv;
      return run.rows < tile_rows &&
             kv.RetentionAt(run.start).from == kv.RetentionAt(row.position).from;
    });
  }

  pool_.Split(count, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) {
      const Row& row = rows[static_cast<size_t>(i)];
      ReadRow(embedding_, row.token, b.x + i * hidden);
      RopeRow(rope_, row.position, b.cosines + i * half, b.sines + i * half);
    }
  });
  for (int layer = 0; layer < c.layers; ++layer) {
    Attention(layers_[static_cast<size_t>(layer)], layer, rows);
    FeedForward(layers_[static_cast<size_t>(layer)], count);
    if (on_layer_) on_layer_();
  }

  // The head, for the rows that want logits; they move to the front of the residual stream.
  int wanted = 0;
  for (int i = 0; i < count; ++i)
    if (rows[static_cast<size_t>(i)].wants_logits) {
      if (i != wanted)
        std::memcpy(b.x + wanted * hidden, b.x + i * hidden, size_t(hidden) * sizeof(float));
      ++wanted;
    }
  if (wanted == 0) return;
  Norm(b.x, final_norm_, wanted, b.normed);
  const ptrdiff_t stride = Padded(c.vocab_size);
  const Product product{.matrix = head_ ? &*head_ : &embedding_,
                        .c = b.logits.as<float>() + static_cast<ptrdiff_t>(logits_row) * stride,
                        .ldc = stride};
  Multiply(kernels_, pool_, activations_, b.normed, wanted, b.packed, {&product, 1});
}

void Decoder::Norm(const float* x, const std::vector<float>& weight, int rows, float* y) {
  const ptrdiff_t n = spec_.config.hidden_size;
  pool_.Split(rows, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i)
      kernels_.rms_norm(x + i * n, weight.data(), int(n), spec_.config.rms_epsilon, y + i * n);
  });
}

void Decoder::AddBias(const Linear& linear, float* row) const {
  if (!linear.bias.empty()) kernels_.add(row, linear.bias.data(), linear.bias.size());
}

void Decoder::Attention(const DecoderLayer& layer, int index, std::span<const Row> rows) {
  const ModelConfig& c = spec_.config;
  Buffers& b = *buffers_;
  const int count = static_cast<int>(rows.size());
  Norm(b.x, layer.attention_norm, count, b.normed);
  const Product products[] = {
      {&layer.q.weights, b.q, layer.q.weights.padded_outputs()},
      {&layer.k.weights, b.k, layer.k.weights.padded_outputs()},
      {&layer.v.weights, b.v, layer.v.weights.padded_outputs()},
  };
  Multiply(kernels_, pool_, activations_, b.normed, count, b.packed, products);

  const int kv_heads = c.kv_heads;
  pool_.Split(static_cast<int>(store_runs_.size()) * kv_heads, [&](int begin, int end, int) {
    for (int item = begin; item < end;) {
      const int head = item % kv_heads, heads = std::min(kv_heads - head, end - item);
      StoreKeysAndValues(layer, index, store_runs_[static_cast<size_t>(item / kv_heads)], head,
                         head + heads);
      item += heads;
    }
  });
  // The later tiles of a prompt cost more: claimed, longest first.
  const int items = static_cast<int>(attend_runs_.size()) * kv_heads;
  pool_.Claim(items, [&](int item, int thread) {
    const int last = items - 1 - item;
    Attend(index, attend_runs_[static_cast<size_t>(last / kv_heads)], last % kv_heads,
           b.scratch + static_cast<size_t>(thread) * b.scratch_floats);
  });

  const ptrdiff_t out_stride = layer.output.weights.padded_outputs();
  const Product product{&layer.output.weights, b.out, out_stride};
  Multiply(kernels_, pool_, activations_, b.attended, count, b.packed, {&product, 1});
  const ptrdiff_t hidden = c.hidden_size;
  pool_.Split(count, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) {
      AddBias(layer.output, b.out + i * out_stride);
      kernels_.add(b.x + i * hidden, b.out + i * out_stride, size_t(hidden));
    }
  });
}

void Decoder::StoreKeysAndValues(const DecoderLayer& layer, int index, const Run& run,
                                 int first_head, int end_head) {
  const ModelConfig& c = spec_.config;
  const Buffers& b = *buffers_;
  const int head_dim = c.head_dim, half = head_dim / 2, group = c.heads / c.kv_heads;
  const ptrdiff_t q_stride = layer.q.weights.padded_outputs();
  const ptrdiff_t kv_stride = layer.k.weights.padded_outputs();
  const auto prepare = [&](float* head, const std::vector<float>& norm, ptrdiff_t row) {
    if (!norm.empty()) kernels_.rms_norm(head, norm.data(), head_dim, c.rms_epsilon, head);
    kernels_.rope(head, b.cosines + row * half, b.sines + row * half, half);
  };
  const auto add_bias = [&](const Linear& linear, float* at, ptrdiff_t offset, int n) {
    if (!linear.bias.empty()) kernels_.add(at, linear.bias.data() + offset, size_t(n));
  };
  // Row by row, all heads of each: so memory is read in order.
  const int heads = end_head - first_head;
  const ptrdiff_t q_offset = static_cast<ptrdiff_t>(first_head) * group * head_dim;
  const ptrdiff_t kv_offset = static_cast<ptrdiff_t>(first_head) * head_dim;
  for (int i = 0; i < run.rows; ++i) {
    const ptrdiff_t row = run.first_row + i;
    float* q = b.q + row * q_stride + q_offset;
    float* k = b.k + row * kv_stride + kv_offset;
    float* v = b.v + row * kv_stride + kv_offset;
    add_bias(layer.q, q, q_offset, heads * group * head_dim);
    add_bias(layer.k, k, kv_offset, heads * head_dim);
    add_bias(layer.v, v, kv_offset, heads * head_dim);
    for (int head = 0; head < heads * group; ++head)
      prepare(q + head * head_dim, layer.q_norm, row);
    for (int head = 0; head < heads; ++head) prepare(k + head * head_dim, layer.k_norm, row);
  }
  const auto page = static_cast<size_t>(run.start / kPageTokens);
  const KvPrecision precision = run.sequence->kv.PrecisionOf(page);
  for (int head = first_head; head < end_head; ++head) {
    const ptrdiff_t offset = run.first_row * kv_stride + static_cast<ptrdiff_t>(head) * head_dim;
    const size_t block =
        static_cast<size_t>(index) * static_cast<size_t>(c.kv_heads) + static_cast<size_t>(head);
    WriteKv(kernels_, precision,
            run.sequence->kv.pages[page] + block * info_.kv.HeadBytes(precision),
            run.start % kPageTokens,
            {.keys = b.k + offset,
             .values = b.v + offset,
             .stride = kv_stride,
             .rows = run.rows,
             .head_dim = head_dim});
  }
}

void Decoder::Attend(int index, const Run& run, int kv_head, float* scratch) {
  const ModelConfig& c = spec_.config;
  const Buffers& b = *buffers_;
  const int group = c.heads / c.kv_heads;
  const ptrdiff_t q_size = static_cast<ptrdiff_t>(c.heads) * c.head_dim;
  AttentionTile tile;
  tile.pages = run.sequence->kv.pages.data();
  if (!run.sequence->kv.precisions.empty()) tile.precisions = run.sequence->kv.precisions.data();
  tile.head =
      static_cast<size_t>(index) * static_cast<size_t>(c.kv_heads) + static_cast<size_t>(kv_head);
  tile.head_dim = c.head_dim;
  tile.rows = run.rows;
  tile.start = run.start;
  tile.window = spec_.windows.empty() ? 0 : spec_.windows[static_cast<size_t>(index)];
  const KvRetention retention = run.sequence->kv.RetentionAt(run.start);
  // Of two windows the shorter one; kept positions are of the retention's.
  const int last = retention.size - retention.keep;
  if (retention.size > 0 && (tile.window == 0 || last < tile.window)) {
    tile.window = last;
    tile.keep = retention.keep;
  }
  tile.q_stride = Padded(static_cast<int>(q_size));
  tile.out_stride = q_size;
  tile.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  // More heads than a tile holds: part by part.
  for (int g = 0; g < group; g += kAttentionQueries) {
    const ptrdiff_t offset = (static_cast<ptrdiff_t>(kv_head) * group + g) * c.head_dim;
    tile.group = std::min(kAttentionQueries, group - g);
    tile.q = b.q + run.first_row * tile.q_stride + offset;
    tile.out = b.attended + run.first_row * tile.out_stride + offset;
    kernels_.attend(tile, scratch);
  }
}

void Decoder::FeedForward(const DecoderLayer& layer, int rows) {
  const ModelConfig& c = spec_.config;
  Buffers& b = *buffers_;
  Norm(b.x, layer.feed_forward_norm, rows, b.normed);
  if (layer.experts) return moe_->Add(*layer.experts, b.normed, rows, b.x);
  const ptrdiff_t stride = layer.gate.weights.padded_outputs();
  const Product products[] = {{&layer.gate.weights, b.gate, stride},
                              {&layer.up.weights, b.up, stride}};
  Multiply(kernels_, pool_, activations_, b.normed, rows, b.packed, products);
  const ptrdiff_t width = c.feed_forward, hidden = c.hidden_size;
  pool_.Split(rows, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) {
      AddBias(layer.gate, b.gate + i * stride);
      AddBias(layer.up, b.up + i * stride);
      kernels_.silu_mul(b.gate + i * stride, b.up + i * stride, size_t(width));
    }
  });
  const ptrdiff_t out_stride = layer.down.weights.padded_outputs();
  const Product product{&layer.down.weights, b.out, out_stride};
  const RowGroup group{.a = b.gate, .lda = stride, .rows = rows, .products = {&product, 1}};
  Multiply(kernels_, pool_, activations_, {&group, 1}, b.packed);
  pool_.Split(rows, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) {
      AddBias(layer.down, b.out + i * out_stride);
      kernels_.add(b.x + i * hidden, b.out + i * out_stride, size_t(hidden));
    }
  });
}

}  // namespace perdure::engine
