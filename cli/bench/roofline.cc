#include "cli/bench/roofline.h"

namespace perdure::cli {

StepWork WorkOf(const engine::ModelInfo& info, const engine::ModelConfig& config,
                const StepShape& shape) {
  const double tokens = shape.Tokens(), streams = shape.streams;
  const double head_weights = double(info.vocab_size) * config.hidden_size;
  const double layer_weights = static_cast<double>(info.token_weights) - head_weights;
  // Token i of a stream attends to cached + i + 1 positions.
  const double attended = tokens * (shape.cached + (shape.fresh + 1) / 2.0);
  const double position_bytes = static_cast<double>(info.kv.PageBytes()) / engine::kPageTokens;
  StepWork work;
  work.weight_ops = 2.0 * (layer_weights * tokens + head_weights * streams);
  work.attention_ops = 4.0 * config.layers * config.heads * config.head_dim * attended;
  work.bytes = static_cast<double>(info.token_bytes) + position_bytes * shape.cached * streams;
  work.int8 = static_cast<double>(info.token_bytes) < 1.5 * static_cast<double>(info.token_weights);
  return work;
}

Roofline RooflineOf(const StepWork& work, const MachineBounds& bounds) {
  const double weight_rate = work.int8 ? bounds.int8_op_per_s : bounds.f32_flop_per_s;
  if (weight_rate <= 0.0 || bounds.f32_flop_per_s <= 0.0 || bounds.read_bytes_per_s <= 0.0)
    return {};
  const double compute = work.weight_ops / weight_rate + work.attention_ops / bounds.f32_flop_per_s;
  const double read = work.bytes / bounds.read_bytes_per_s;
  if (read >= compute) return {read, "read bandwidth"};
  return {compute, work.int8 ? "int8 peak" : "f32 peak"};
}

}  // namespace perdure::cli
