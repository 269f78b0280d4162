// Which architectures there are. A new one is a file of its own and a line in architectures.inc
// (docs/adding_a_model.md).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/config.h"

namespace perdure::engine {

class Checkpoint;

// Where the tensors are: `<body>.embed_tokens.weight`, `<body>.layers.0.…`, `<head>.weight`.
struct TensorNames {
  std::string_view body = "model";
  std::string_view head = "lm_head";
};

// What a pre-norm decoder of the common kind (attention and SwiGLU, each behind an RMSNorm) leaves
// open; tensors are named as in Hugging Face checkpoints. models/decoder.h computes it.
struct DecoderSpec {
  ModelConfig config;
  bool qkv_bias = false;     // self_attn.{q,k,v}_proj.bias
  bool output_bias = false;  // self_attn.o_proj.bias
  bool mlp_bias = false;     // mlp.{gate,up,down}_proj.bias
  bool experts = false;      // layers with experts, as config.experts says
  bool qk_norm = false;      // self_attn.{q,k}_norm: RMSNorm over each head before RoPE
  // By layer, the positions that a query sees, its own the last; 0: all up to it. Empty: all 0.
  std::vector<int> windows = {};
  // Where they may be; FindNames chooses.
  std::vector<TensorNames> names = {TensorNames()};
  // What a person should know of this model, one sentence each: ModelInfo::notes.
  std::vector<std::string> notes = {};
};

// One a file of this folder; `unsupported` where the config asks for something that is not done
// here.
#define ARCHITECTURE(model_type, describe) Result<DecoderSpec> describe(const ModelConfig& config);
#include "engine/models/architectures.inc"
#undef ARCHITECTURE

// `unsupported`, with a list of the known ones, for a model_type that has no architecture here or
// for a model made for something other than generating text.
Status CheckModelKind(const ModelKind& kind);

// By config.model_type, which passed CheckModelKind.
Result<DecoderSpec> DescribeModel(const ModelConfig& config);

// The first of spec.names whose body the checkpoint has; where it has none, the first, whose
// tensors an error then names.
TensorNames FindNames(const Checkpoint& checkpoint, const DecoderSpec& spec);

}  // namespace perdure::engine
