// Loading: tensors by name, shapes from the config.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/models/decoder.h"
#include "engine/models/decoder_buffers.h"
#include "engine/rope.h"
#include "engine/weights/pack.h"

namespace perdure::engine {
namespace {

Result<Linear> ReadLinear(WeightReader& reader, const std::string& module, int outputs, int inputs,
                          bool bias) {
  Linear linear;
  ASSIGN_OR_RETURN(linear.weights, reader.Matrix(module, outputs, inputs));
  if (bias) {
    ASSIGN_OR_RETURN(linear.bias, reader.Vector(module + ".bias", outputs));
    linear.bias.resize(static_cast<size_t>(linear.weights.padded_outputs()), 0.0f);
  } else if (reader.Has(module + ".bias")) {
    return Err(
        ErrorCode::unsupported,
        fmt::format("the checkpoint has {}.bias, which this architecture does not use", module));
  }
  return linear;
}

size_t Bytes(const Linear& linear) {
  return linear.weights.data.size() + linear.bias.size() * sizeof(float);
}

std::string_view FormatName(PanelFormat format) {
  switch (format) {
    case PanelFormat::kF32:
      return "f32";
    case PanelFormat::kF16:
      return "f16";
    case PanelFormat::kBf16:
      return "bf16";
    case PanelFormat::kQ8:
    case PanelFormat::kQ4:
      break;
  }
  return "quantized";
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, const EngineOptions& options)
    : spec_(std::move(spec)),
      on_layer_(options.on_layer),
      kernels_(KernelsFor(options.isa)),
      pool_(options.threads),
      frequencies_(RopeFrequencies(spec_.config.rope, spec_.config.head_dim)),
      buffers_(std::make_unique<Buffers>()) {}

Result<std::unique_ptr<Engine>> Decoder::Load(DecoderSpec spec, const Checkpoint& checkpoint,
                                              const EngineOptions& options) {
  std::unique_ptr<Decoder> decoder(new Decoder(std::move(spec), options));
  RETURN_IF_ERROR(decoder->LoadWeights(checkpoint, options));
  return std::unique_ptr<Engine>(std::move(decoder));
}

Status Decoder::LoadWeights(const Checkpoint& checkpoint, const EngineOptions& options) {
  LoadProgress progress{.bytes_done = 0, .bytes_total = checkpoint.data_bytes()};
  WeightReader reader(checkpoint, spec_.config, pool_, [&](uint64_t bytes) {
    progress.bytes_done += bytes;
    if (options.on_progress) options.on_progress(progress);
  });
  const ModelConfig& c = spec_.config;
  ASSIGN_OR_RETURN(embedding_, reader.Matrix("model.embed_tokens", c.vocab_size, c.hidden_size));
  layers_.resize(static_cast<size_t>(c.layers));
  for (int i = 0; i < c.layers; ++i)
    RETURN_IF_ERROR(LoadLayer(reader, i, &layers_[static_cast<size_t>(i)]));
  ASSIGN_OR_RETURN(final_norm_, reader.Vector("model.norm.weight", c.hidden_size));
  // Where the config does not say: tied unless there is a head.
  if (!c.tied_embeddings.value_or(!reader.Has("lm_head.weight"))) {
    ASSIGN_OR_RETURN(head_, reader.Matrix("lm_head", c.vocab_size, c.hidden_size));
  }
  // Tensors that are not used (a tied head's copy, inv_freq) count as done, too.
  progress.bytes_done = progress.bytes_total;
  if (options.on_progress) options.on_progress(progress);
  FillInfo(reader.parameters(), checkpoint);
  return {};
}

Status Decoder::LoadLayer(WeightReader& reader, int index, DecoderLayer* layer) {
  const ModelConfig& c = spec_.config;
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int q_size = c.heads * c.head_dim, kv_size = c.kv_heads * c.head_dim;
  ASSIGN_OR_RETURN(layer->attention_norm,
                   reader.Vector(prefix + "input_layernorm.weight", c.hidden_size));
  ASSIGN_OR_RETURN(layer->q,
                   ReadLinear(reader, attention + "q_proj", q_size, c.hidden_size, spec_.qkv_bias));
  ASSIGN_OR_RETURN(
      layer->k, ReadLinear(reader, attention + "k_proj", kv_size, c.hidden_size, spec_.qkv_bias));
  ASSIGN_OR_RETURN(
      layer->v, ReadLinear(reader, attention + "v_proj", kv_size, c.hidden_size, spec_.qkv_bias));
  ASSIGN_OR_RETURN(layer->output, ReadLinear(reader, attention + "o_proj", c.hidden_size, q_size,
                                             spec_.output_bias));
  if (spec_.qk_norm) {
    ASSIGN_OR_RETURN(layer->q_norm, reader.Vector(attention + "q_norm.weight", c.head_dim));
    ASSIGN_OR_RETURN(layer->k_norm, reader.Vector(attention + "k_norm.weight", c.head_dim));
  }
  ASSIGN_OR_RETURN(layer->feed_forward_norm,
                   reader.Vector(prefix + "post_attention_layernorm.weight", c.hidden_size));
  ASSIGN_OR_RETURN(layer->gate,
                   ReadLinear(reader, mlp + "gate_proj", c.feed_forward, c.hidden_size, false));
  ASSIGN_OR_RETURN(layer->up,
                   ReadLinear(reader, mlp + "up_proj", c.feed_forward, c.hidden_size, false));
  ASSIGN_OR_RETURN(layer->down,
                   ReadLinear(reader, mlp + "down_proj", c.hidden_size, c.feed_forward, false));
  return {};
}

void Decoder::FillInfo(int64_t parameters, const Checkpoint& checkpoint) {
  const ModelConfig& c = spec_.config;
  info_.architecture = c.model_type;
  info_.numerics_id = fmt::format("{}-f32", kKernelVersion);
  info_.parameters = parameters;
  info_.layers = c.layers;
  info_.vocab_size = c.vocab_size;
  info_.max_context = c.max_context;
  info_.kv = {.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim};
  info_.eos_ids = c.eos_ids;

  uint64_t bytes = embedding_.data.size() + final_norm_.size() * sizeof(float);
  if (head_) bytes += head_->data.size();
  std::set<PanelFormat> formats;
  for (const DecoderLayer& layer : layers_) {
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down}) {
      bytes += Bytes(*linear);
      formats.insert(linear->weights.layout.format);
    }
    bytes += (2 * layer.attention_norm.size() + 2 * layer.q_norm.size()) * sizeof(float);
  }
  info_.weight_bytes = bytes;

  const bool quantized = formats.contains(PanelFormat::kQ4) || formats.contains(PanelFormat::kQ8);
  if (quantized && c.quantization) {
    const bool mixed = std::any_of(
        c.quantization->overrides.begin(), c.quantization->overrides.end(), [&](const auto& entry) {
          return entry.second != c.quantization->all && checkpoint.Has(entry.first + ".weight");
        });
    info_.quantization = fmt::format("affine {}-bit, group {}{}", c.quantization->all.bits,
                                     c.quantization->all.group, mixed ? ", mixed" : "");
  } else {
    info_.quantization = FormatName(layers_[0].q.weights.layout.format);
  }
}

}  // namespace perdure::engine
