// Loading: tensors by name, shapes from the config.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/models/decoder.h"
#include "engine/models/decoder_buffers.h"
#include "engine/weights/weight_reader.h"

namespace perdure::engine {
namespace {

Result<Linear> ReadLinear(WeightReader& reader, const std::string& module, int outputs, int inputs,
                          bool bias) {
  Linear linear;
  ASSIGN_OR_RETURN(linear.weights, reader.Matrix(module, outputs, inputs));
  if (bias) {
    ASSIGN_OR_RETURN(linear.bias, reader.Vector(module + ".bias", outputs));
    linear.bias.resize(static_cast<size_t>(linear.weights.padded_outputs()), 0.0f);
  } else {
    RETURN_IF_ERROR(reader.RefuseBias(module));
  }
  return linear;
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
    case PanelFormat::kMxfp4:
      break;
  }
  return "quantized";
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, const EngineOptions& options)
    : spec_(std::move(spec)),
      on_layer_(options.on_layer),
      kernels_(KernelsFor(options.isa)),
      activations_(options.activations),
      pool_(options.threads, options.profile),
      rope_(MakeRopeTable(spec_.config.rope, spec_.config.head_dim)),
      buffers_(std::make_unique<Buffers>()) {}

Result<std::unique_ptr<Engine>> Decoder::Load(DecoderSpec spec, const Checkpoint& checkpoint,
                                              const EngineOptions& options) {
  std::unique_ptr<Decoder> decoder(new Decoder(std::move(spec), options));
  RETURN_IF_ERROR(decoder->LoadWeights(checkpoint, options, {}));
  return std::unique_ptr<Engine>(std::move(decoder));
}

Result<std::unique_ptr<Engine>> Decoder::Map(DecoderSpec spec, const Checkpoint& checkpoint,
                                             const EngineOptions& options, PreparedFile file) {
  std::unique_ptr<Decoder> decoder(new Decoder(std::move(spec), options));
  decoder->mapped_.emplace(std::move(file), options.on_damage);
  RETURN_IF_ERROR(decoder->mapped_->Populate(options.on_progress));
  const WeightsPlace place{.from = &decoder->mapped_->file(), .to = nullptr};
  RETURN_IF_ERROR(decoder->LoadWeights(checkpoint, options, place));
  decoder->info_.mapped_bytes = decoder->mapped_->file().bytes();
  return std::unique_ptr<Engine>(std::move(decoder));
}

Status Decoder::Prepare(DecoderSpec spec, const Checkpoint& checkpoint,
                        const EngineOptions& options, PreparedWriter& writer) {
  return Decoder(std::move(spec), options)
      .LoadWeights(checkpoint, options, {.from = nullptr, .to = &writer});
}

Status Decoder::LoadWeights(const Checkpoint& checkpoint, const EngineOptions& options,
                            const WeightsPlace& place) {
  LoadProgress progress{.bytes_done = 0, .bytes_total = checkpoint.data_bytes()};
  const auto done = [&](uint64_t bytes) {
    progress.bytes_done += bytes;
    if (options.on_progress) options.on_progress(progress);
  };
  WeightReader reader(checkpoint, spec_.config, pool_, done, place);
  const ModelConfig& c = spec_.config;
  const TensorNames names = FindNames(checkpoint, spec_);
  const std::string body(names.body), head(names.head);
  ASSIGN_OR_RETURN(embedding_, reader.Matrix(body + ".embed_tokens", c.vocab_size, c.hidden_size));
  layers_.resize(static_cast<size_t>(c.layers));
  for (size_t i = 0; i < layers_.size(); ++i)
    RETURN_IF_ERROR(
        LoadLayer(reader, fmt::format("{}.layers.{}.", body, i), static_cast<int>(i), &layers_[i]));
  ASSIGN_OR_RETURN(final_norm_, reader.Vector(body + ".norm.weight", c.hidden_size));
  // Where the config does not say: tied unless there is a head.
  if (!c.tied_embeddings.value_or(!reader.Has(head + ".weight"))) {
    ASSIGN_OR_RETURN(head_, reader.Matrix(head, c.vocab_size, c.hidden_size));
  }
  if (spec_.experts) moe_.emplace(kernels_, pool_, activations_, c.hidden_size, c.experts);
  // Tensors that are not used (a tied head's copy, inv_freq) count as done, too.
  progress.bytes_done = progress.bytes_total;
  if (options.on_progress) options.on_progress(progress);
  FillInfo(reader.parameters(), checkpoint);
  return {};
}

Status Decoder::LoadLayer(WeightReader& reader, const std::string& prefix, int index,
                          DecoderLayer* layer) {
  const ModelConfig& c = spec_.config;
  const std::string attention = prefix + "self_attn.";
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
  return LoadFeedForward(reader, prefix + "mlp", index, layer);
}

Status Decoder::LoadFeedForward(WeightReader& reader, const std::string& mlp, int index,
                                DecoderLayer* layer) {
  const ModelConfig& c = spec_.config;
  if (spec_.experts && c.experts.InLayer(index)) {
    ASSIGN_OR_RETURN(layer->experts, LoadMoeLayer(reader, mlp, c.hidden_size, c.experts));
    return {};
  }
  const auto read = [&](Linear* linear, std::string_view name, int outputs, int inputs) -> Status {
    ASSIGN_OR_RETURN(*linear, ReadLinear(reader, fmt::format("{}.{}", mlp, name), outputs, inputs,
                                         spec_.mlp_bias));
    return {};
  };
  RETURN_IF_ERROR(read(&layer->gate, "gate_proj", c.feed_forward, c.hidden_size));
  RETURN_IF_ERROR(read(&layer->up, "up_proj", c.feed_forward, c.hidden_size));
  return read(&layer->down, "down_proj", c.hidden_size, c.feed_forward);
}

bool Decoder::HasDenseLayers() const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const DecoderLayer& layer) { return !layer.experts; });
}

void Decoder::FillInfo(int64_t parameters, const Checkpoint& checkpoint) {
  const ModelConfig& c = spec_.config;
  info_.architecture = c.model_type;
  info_.numerics_id = fmt::format("{}-{}", kKernelVersion, ActivationsName(activations_));
  info_.parameters = parameters;
  info_.layers = c.layers;
  info_.vocab_size = c.vocab_size;
  info_.max_context = c.max_context;
  info_.kv = {.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim};
  info_.eos_ids = c.eos_ids;
  info_.notes = spec_.notes;
  info_.work_bytes = LargestWorkBytes();

  std::set<PanelFormat> formats;
  info_.weight_bytes = head_ ? embedding_.data.size() : 0;
  // `used`: of the matrix's parts, for one token.
  const auto count = [&](const PackedMatrix& matrix, int used) {
    formats.insert(matrix.layout.format);
    info_.weight_bytes += matrix.data.size();
    info_.token_bytes +=
        matrix.data.size() / static_cast<size_t>(matrix.parts) * static_cast<size_t>(used);
    info_.token_weights += int64_t{matrix.outputs} * matrix.layout.k * used;
  };
  count(head_ ? *head_ : embedding_, 1);
  for (const DecoderLayer& layer : layers_) {
    std::vector<const Linear*> linears = {&layer.q, &layer.k, &layer.v, &layer.output};
    if (layer.experts) {
      count(layer.experts->router, 1);
      for (const PackedMatrix* matrix :
           {&layer.experts->gate, &layer.experts->up, &layer.experts->down})
        count(*matrix, c.experts.per_token);
    } else {
      linears.insert(linears.end(), {&layer.gate, &layer.up, &layer.down});
    }
    for (const Linear* linear : linears) {
      count(linear->weights, 1);
      info_.weight_bytes += linear->bias.size() * sizeof(float);
    }
    info_.weight_bytes += 2 * (layer.attention_norm.size() + layer.q_norm.size()) * sizeof(float);
  }
  info_.weight_bytes += final_norm_.size() * sizeof(float);

  const bool quantized = std::any_of(formats.begin(), formats.end(), [](PanelFormat format) {
    return FormatName(format) == "quantized";
  });
  if (quantized && c.quantize) {
    info_.quantization = NameOf(*c.quantize) + ", quantized on load";
  } else if (quantized && c.quantization) {
    const bool mixed = std::any_of(
        c.quantization->overrides.begin(), c.quantization->overrides.end(), [&](const auto& entry) {
          return entry.second != c.quantization->all && checkpoint.Has(entry.first + ".weight");
        });
    info_.quantization = NameOf(c.quantization->all) + (mixed ? ", mixed" : "");
  } else {
    info_.quantization = FormatName(layers_[0].q.weights.layout.format);
  }
}

}  // namespace perdure::engine
