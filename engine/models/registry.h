// Which architectures there are. A new one is a file of its own and a line in registry.cc.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/config.h"

namespace perdure::engine {

// What a pre-norm decoder of the common kind (attention and SwiGLU, each behind an RMSNorm) leaves
// open; tensors are named as in Hugging Face checkpoints. models/decoder.h computes it.
struct DecoderSpec {
  ModelConfig config;
  bool qkv_bias = false;     // self_attn.{q,k,v}_proj.bias
  bool output_bias = false;  // self_attn.o_proj.bias
  bool qk_norm = false;      // self_attn.{q,k}_norm: RMSNorm over each head before RoPE
};

// `unsupported` where the config asks for something the architecture does not do here.
using DescribeFn = Result<DecoderSpec> (*)(const ModelConfig& config);

// By config.model_type; `unsupported` lists the known ones.
Result<DecoderSpec> DescribeModel(const ModelConfig& config);

// For the architectures' own files: refuses a sliding window that would hide positions.
Status RefuseSlidingWindow(const ModelConfig& config);

}  // namespace perdure::engine
