#include "synth_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "engine/float16.h"

namespace perdure::engine {
namespace {

uint64_t Mix(uint64_t z) {  // the finalizer of splitmix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

uint64_t Hash(const std::string& text) {  // FNV-1a
  uint64_t h = 0xCBF29CE484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}

// Element `index` of the stream of `name`.
class Stream {
 public:
  Stream(uint64_t seed, const std::string& name) : base_(Mix(seed) ^ Hash(name)) {}
  uint64_t Bits(uint64_t index) const { return Mix(base_ + (index + 1) * 0x9E3779B97F4A7C15u); }
  // In [-0.5, 0.5), 24 bits: exact in f32.
  float Centered(uint64_t index) const {
    return static_cast<float>(Bits(index) >> 40) * 0x1p-24f - 0.5f;
  }

 private:
  uint64_t base_;
};

void Append(std::string& data, const std::string& dtype, float value) {
  if (dtype == "f32") {
    data.append(reinterpret_cast<const char*>(&value), sizeof value);
  } else {
    const uint16_t half = dtype == "f16" ? F32ToF16(value) : F32ToBf16(value);
    data.append(reinterpret_cast<const char*>(&half), sizeof half);
  }
}

std::string HeaderDType(const std::string& dtype) {
  return dtype == "f32" ? "F32" : dtype == "f16" ? "F16" : "BF16";
}

class Builder {
 public:
  explicit Builder(const SynthSpec& spec) : spec_(spec) {}

  // offset + amplitude · centered
  void Vector(const std::string& name, int size, float offset, float amplitude) {
    const Stream stream(spec_.seed, name);
    SynthTensor tensor{name, HeaderDType(spec_.dtype), {size}, {}};
    for (int i = 0; i < size; ++i)
      Append(tensor.data, spec_.dtype,
             offset + stream.Centered(static_cast<uint64_t>(i)) * amplitude);
    tensors_.push_back(std::move(tensor));
  }

  // Outputs of standard deviation `gain` where the inputs' is 1. `shape` is {outputs, inputs}, for
  // experts with their number before.
  void Matrix(const std::string& module, std::vector<int64_t> shape, double gain) {
    const auto it = spec_.overrides.find(module);
    const bool named = it != spec_.overrides.end();
    const int bits = named ? it->second : spec_.bits;
    const bool mxfp4 = spec_.mode == "mxfp4" && !named;
    const int64_t inputs = shape.back();
    const double deviation = gain / std::sqrt(static_cast<double>(inputs));
    if (bits != 0 && inputs % (mxfp4 ? 32 : spec_.group) == 0) {
      if (mxfp4) return Mxfp4Matrix(module, shape, deviation);
      return QuantizedMatrix(module, shape, bits, deviation);
    }
    const auto amplitude = static_cast<float>(deviation * std::sqrt(12.0));
    const std::string name = module + ".weight";
    const Stream stream(spec_.seed, name);
    SynthTensor tensor{name, HeaderDType(spec_.dtype), shape, {}};
    const uint64_t count = Product(shape);
    tensor.data.reserve(count * (spec_.dtype == "f32" ? 4 : 2));
    for (uint64_t i = 0; i < count; ++i)
      Append(tensor.data, spec_.dtype, stream.Centered(i) * amplitude);
    tensors_.push_back(std::move(tensor));
  }

  std::vector<SynthTensor> Take() { return std::move(tensors_); }

 private:
  static uint64_t Product(const std::vector<int64_t>& shape) {
    uint64_t product = 1;
    for (int64_t size : shape) product *= static_cast<uint64_t>(size);
    return product;
  }

  // Numbers uniform in [0, 2^bits).
  SynthTensor Words(const std::string& module, std::vector<int64_t> shape, int bits) {
    shape.back() = shape.back() * bits / 32;
    SynthTensor weight{module + ".weight", "U32", shape, {}};
    const Stream stream(spec_.seed, weight.name);
    for (uint64_t i = 0; i < Product(shape); ++i) {
      const auto word = static_cast<uint32_t>(stream.Bits(i) >> 32);
      weight.data.append(reinterpret_cast<const char*>(&word), sizeof word);
    }
    return weight;
  }

  // Elements have a standard deviation of 2.926, scales are half, once or twice a power of two: a
  // root mean square of 1.323.
  void Mxfp4Matrix(const std::string& module, std::vector<int64_t> shape, double deviation) {
    SynthTensor weight = Words(module, shape, 4);
    shape.back() /= 32;
    SynthTensor scales{module + ".scales", "U8", shape, {}};
    const Stream stream(spec_.seed, scales.name);
    const int middle = 127 + static_cast<int>(std::lround(std::log2(deviation / 3.87)));
    for (uint64_t i = 0; i < Product(shape); ++i)
      scales.data.push_back(
          static_cast<char>(middle - 1 + static_cast<int>((stream.Bits(i) >> 40) % 3)));
    tensors_.push_back(std::move(weight));
    tensors_.push_back(std::move(scales));
  }

  void QuantizedMatrix(const std::string& module, std::vector<int64_t> shape, int bits,
                       double deviation) {
    SynthTensor weight = Words(module, shape, bits);
    // Numbers uniform in [0, 2^bits): scale them to the deviation, ± a quarter; every third scale
    // is negative; biases put the middle near zero.
    shape.back() /= spec_.group;
    const double steps = static_cast<double>((1 << bits) - 1);
    const auto scale = static_cast<float>(deviation * std::sqrt(12.0) / steps);
    const auto middle = static_cast<float>(steps / 2.0);
    SynthTensor scales{module + ".scales", HeaderDType(spec_.dtype), shape, {}};
    SynthTensor biases{module + ".biases", HeaderDType(spec_.dtype), shape, {}};
    const Stream scale_stream(spec_.seed, scales.name), bias_stream(spec_.seed, biases.name);
    for (uint64_t i = 0; i < Product(shape); ++i) {
      const float sign = i % 3 == 2 ? -1.0f : 1.0f;
      const float s = sign * scale * (1.0f + scale_stream.Centered(i) * 0.5f);
      Append(scales.data, spec_.dtype, s);
      Append(biases.data, spec_.dtype, s * (bias_stream.Centered(i) - middle));
    }
    tensors_.push_back(std::move(weight));
    tensors_.push_back(std::move(scales));
    tensors_.push_back(std::move(biases));
  }

  const SynthSpec& spec_;
  std::vector<SynthTensor> tensors_;
};

// Part `part` of `parts` of a stacked tensor.
std::string_view PartOf(const SynthTensor& tensor, int64_t part) {
  const size_t size = tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
  return std::string_view(tensor.data).substr(static_cast<size_t>(part) * size, size);
}

// From `….mlp.switch_mlp.gate_proj.weight` to `….mlp.experts.3.gate_proj.weight`.
void LayApart(const SynthTensor& stacked, std::vector<SynthTensor>* to) {
  const size_t at = stacked.name.find("switch_mlp.");
  for (int64_t expert = 0; expert < stacked.shape[0]; ++expert)
    to->push_back({stacked.name.substr(0, at) + "experts." + std::to_string(expert) + "." +
                       stacked.name.substr(at + 11),
                   stacked.dtype,
                   {stacked.shape.begin() + 1, stacked.shape.end()},
                   std::string(PartOf(stacked, expert))});
}

// gate_proj and up_proj as one, rows of the first before those of the second.
SynthTensor Fuse(const SynthTensor& gate, const SynthTensor& up) {
  SynthTensor fused{gate.name, gate.dtype, gate.shape, {}};
  fused.shape[1] *= 2;
  for (int64_t expert = 0; expert < gate.shape[0]; ++expert)
    fused.data.append(PartOf(gate, expert)).append(PartOf(up, expert));
  return fused;
}

std::vector<SynthTensor> LayExperts(std::vector<SynthTensor> tensors, const std::string& layout) {
  if (layout == "stacked") return tensors;
  std::vector<SynthTensor> laid;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t at = tensors[i].name.find("switch_mlp.");
    if (at == std::string::npos) {
      laid.push_back(std::move(tensors[i]));
    } else if (layout == "apart") {
      LayApart(tensors[i], &laid);
    } else {
      CHECK(layout == "fused" && tensors[i + 2].name.ends_with("down_proj.weight"));
      const std::string experts = tensors[i].name.substr(0, at) + "experts.";
      laid.push_back(Fuse(tensors[i], tensors[i + 1]));
      laid.back().name = experts + "gate_up_proj";
      laid.push_back(std::move(tensors[i + 2]));
      laid.back().name = experts + "down_proj";
      i += 2;
    }
  }
  return laid;
}

bool HasExperts(const SynthSpec& s, int layer) {
  return s.experts > 0 &&
         std::find(s.dense_layers.begin(), s.dense_layers.end(), layer) == s.dense_layers.end();
}

// The header and its length.
std::string SafetensorsHeader(const std::vector<SynthTensor>& tensors, size_t pad) {
  std::string header = "{";
  size_t at = 0;
  for (const SynthTensor& tensor : tensors) {
    if (header.size() > 1) header += ",";
    header += "\"" + tensor.name + "\":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      header += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(at) + "," +
              std::to_string(at + tensor.data.size()) + "]}";
    at += tensor.data.size();
  }
  header += "}" + std::string(pad, ' ');
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header;
}

// Large models would not fit into memory twice.
void WriteSafetensors(const std::filesystem::path& path, const std::vector<SynthTensor>& tensors,
                      size_t pad) {
  WriteText(path, SafetensorsHeader(tensors, pad));
  std::ofstream file(path, std::ios::binary | std::ios::app);
  for (const SynthTensor& tensor : tensors)
    file.write(tensor.data.data(), static_cast<std::streamsize>(tensor.data.size()));
  file.close();
  CHECK_MSG(!file.fail(), path.string());
}

}  // namespace

bool SynthField(std::string_view name, const Json& value, SynthSpec* spec) {
  SynthSpec& s = *spec;
  const auto set = [&](std::string_view field, auto& to) {
    if (name != field) return false;
    value.get_to(to);
    return true;
  };
  if (name == "config") {
    s.config = value.dump();
    return true;
  }
  return set("model_type", s.model_type) || set("dtype", s.dtype) || set("hidden", s.hidden) ||
         set("layers", s.layers) || set("heads", s.heads) || set("kv_heads", s.kv_heads) ||
         set("head_dim", s.head_dim) || set("feed_forward", s.feed_forward) ||
         set("vocab", s.vocab) || set("tied", s.tied) || set("bits", s.bits) ||
         set("group", s.group) || set("overrides", s.overrides) || set("shards", s.shards) ||
         set("seed", s.seed) || set("logit_std", s.logit_std) ||
         set("attention_bias", s.attention_bias) || set("mlp_bias", s.mlp_bias) ||
         set("mode", s.mode) || set("experts", s.experts) ||
         set("experts_per_token", s.experts_per_token) ||
         set("expert_feed_forward", s.expert_feed_forward) || set("dense_layers", s.dense_layers) ||
         set("expert_layout", s.expert_layout);
}

std::vector<SynthTensor> SynthTensors(const SynthSpec& s) {
  Builder b(s);
  const int q_size = s.heads * s.head_dim, kv_size = s.kv_heads * s.head_dim;
  const std::string root = s.model_type == "mistral3" ? "language_model." : "";
  b.Matrix(root + "model.embed_tokens", {s.vocab, s.hidden}, s.logit_std);
  for (int i = 0; i < s.layers; ++i) {
    const std::string layer = root + "model.layers." + std::to_string(i) + ".";
    const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    b.Vector(layer + "input_layernorm.weight", s.hidden, 1.0f, 0.5f);
    b.Matrix(attention + "q_proj", {q_size, s.hidden}, 1.5);
    b.Matrix(attention + "k_proj", {kv_size, s.hidden}, 1.5);
    b.Matrix(attention + "v_proj", {kv_size, s.hidden}, 1.0);
    if (s.model_type == "qwen2" || s.attention_bias) {
      b.Vector(attention + "q_proj.bias", q_size, 0.0f, 1.0f);
      b.Vector(attention + "k_proj.bias", kv_size, 0.0f, 1.0f);
      b.Vector(attention + "v_proj.bias", kv_size, 0.0f, 0.5f);
    }
    if (s.model_type.starts_with("qwen3")) {
      b.Vector(attention + "q_norm.weight", s.head_dim, 1.5f, 0.5f);
      b.Vector(attention + "k_norm.weight", s.head_dim, 1.5f, 0.5f);
    }
    b.Matrix(attention + "o_proj", {s.hidden, q_size}, 1.0);
    if (s.attention_bias) b.Vector(attention + "o_proj.bias", s.hidden, 0.0f, 0.5f);
    b.Vector(layer + "post_attention_layernorm.weight", s.hidden, 1.0f, 0.5f);
    if (HasExperts(s, i)) {
      const std::string experts = mlp + "switch_mlp.";
      b.Matrix(mlp + "gate", {s.experts, s.hidden}, 2.0);
      b.Matrix(experts + "gate_proj", {s.experts, s.expert_feed_forward, s.hidden}, 1.5);
      b.Matrix(experts + "up_proj", {s.experts, s.expert_feed_forward, s.hidden}, 1.0);
      b.Matrix(experts + "down_proj", {s.experts, s.hidden, s.expert_feed_forward}, 1.0);
      continue;
    }
    b.Matrix(mlp + "gate_proj", {s.feed_forward, s.hidden}, 1.5);
    b.Matrix(mlp + "up_proj", {s.feed_forward, s.hidden}, 1.0);
    b.Matrix(mlp + "down_proj", {s.hidden, s.feed_forward}, 1.0);
    if (s.mlp_bias) {
      b.Vector(mlp + "gate_proj.bias", s.feed_forward, 0.0f, 1.0f);
      b.Vector(mlp + "up_proj.bias", s.feed_forward, 0.0f, 1.0f);
      b.Vector(mlp + "down_proj.bias", s.hidden, 0.0f, 0.5f);
    }
  }
  b.Vector(root + "model.norm.weight", s.hidden, 1.0f, 0.25f);
  if (!s.tied) b.Matrix(root + "lm_head", {s.vocab, s.hidden}, s.logit_std);
  return LayExperts(b.Take(), s.expert_layout);
}

std::string SynthConfigJson(const SynthSpec& s) {
  Json json = {{"model_type", s.model_type},
               {"hidden_size", s.hidden},
               {"num_hidden_layers", s.layers},
               {"num_attention_heads", s.heads},
               {"num_key_value_heads", s.kv_heads},
               {"head_dim", s.head_dim},
               {"intermediate_size", s.feed_forward},
               {"vocab_size", s.vocab},
               {"max_position_embeddings", 4096},
               {"eos_token_id", 2},
               {"rms_norm_eps", 1e-06},
               {"rope_theta", 10000.0},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", s.tied}};
  if (s.attention_bias) json["attention_bias"] = true;
  if (s.mlp_bias) json["mlp_bias"] = true;
  if (s.experts > 0)
    json.update({{"num_experts", s.experts},
                 {"num_experts_per_tok", s.experts_per_token},
                 {"moe_intermediate_size", s.expert_feed_forward},
                 {"norm_topk_prob", true},
                 {"decoder_sparse_step", 1},
                 {"mlp_only_layers", s.dense_layers}});
  json.update(Json::parse(s.config));
  if (s.model_type == "mistral3") {
    json["model_type"] = "mistral";
    json = {{"model_type", s.model_type}, {"text_config", std::move(json)}};
  }
  if (s.bits != 0) {
    const auto quant = [&](int bits) { return Json{{"group_size", s.group}, {"bits", bits}}; };
    json["quantization"] = s.mode == "mxfp4"
                               ? Json{{"group_size", 32}, {"bits", 4}, {"mode", "mxfp4"}}
                               : quant(s.bits);
    for (const auto& [module, bits] : s.overrides)
      json["quantization"][module] = bits == 0 ? Json(false) : quant(bits);
  }
  return json.dump(2) + "\n";
}

std::string SafetensorsBytes(const std::vector<SynthTensor>& tensors, size_t pad) {
  std::string bytes = SafetensorsHeader(tensors, pad);
  for (const SynthTensor& tensor : tensors) bytes += tensor.data;
  return bytes;
}

void WriteText(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  CHECK_MSG(!file.fail(), path.string());
}

void WriteSynthModel(const SynthSpec& spec, const std::filesystem::path& dir) {
  WriteText(dir / "config.json", SynthConfigJson(spec));
  const std::vector<SynthTensor> tensors = SynthTensors(spec);
  if (spec.shards <= 1) {
    WriteSafetensors(dir / "model.safetensors", tensors, 0);
    return;
  }
  std::string map;
  const auto shards = static_cast<size_t>(spec.shards);
  for (size_t shard = 0; shard < shards; ++shard) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
    std::vector<SynthTensor> part;
    for (size_t i = shard; i < tensors.size(); i += shards) {
      part.push_back(tensors[i]);
      map += (map.empty() ? "" : ",\n") + std::string("    \"") + tensors[i].name + "\": \"" +
             name + "\"";
    }
    WriteSafetensors(dir / name, part, shard);
  }
  WriteText(dir / "model.safetensors.index.json",
            "{\n  \"metadata\": {},\n  \"weight_map\": {\n" + map + "\n  }\n}\n");
}

std::vector<int32_t> SynthTokens(uint64_t seed, int count, int vocab) {
  const Stream stream(seed, "tokens");
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(
        static_cast<int32_t>(stream.Bits(static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocab)));
  return tokens;
}

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "perdure-engine-XXXXXX").string();
  CHECK(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace perdure::engine
