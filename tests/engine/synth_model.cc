#include "synth_model.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

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

  // Outputs of standard deviation `gain` where the inputs' is 1.
  void Matrix(const std::string& module, int outputs, int inputs, double gain) {
    const auto it = spec_.overrides.find(module);
    const int bits = it == spec_.overrides.end() ? spec_.bits : it->second;
    const double deviation = gain / std::sqrt(static_cast<double>(inputs));
    if (bits != 0) return QuantizedMatrix(module, outputs, inputs, bits, deviation);
    const auto amplitude = static_cast<float>(deviation * std::sqrt(12.0));
    const std::string name = module + ".weight";
    const Stream stream(spec_.seed, name);
    SynthTensor tensor{name, HeaderDType(spec_.dtype), {outputs, inputs}, {}};
    const uint64_t count = static_cast<uint64_t>(outputs) * static_cast<uint64_t>(inputs);
    tensor.data.reserve(count * (spec_.dtype == "f32" ? 4 : 2));
    for (uint64_t i = 0; i < count; ++i)
      Append(tensor.data, spec_.dtype, stream.Centered(i) * amplitude);
    tensors_.push_back(std::move(tensor));
  }

  std::vector<SynthTensor> Take() { return std::move(tensors_); }

 private:
  void QuantizedMatrix(const std::string& module, int outputs, int inputs, int bits,
                       double deviation) {
    CHECK(inputs % spec_.group == 0);
    const auto words = static_cast<int64_t>(inputs) * bits / 32;
    SynthTensor weight{module + ".weight", "U32", {outputs, words}, {}};
    const Stream stream(spec_.seed, weight.name);
    for (uint64_t i = 0; i < static_cast<uint64_t>(outputs * words); ++i) {
      const auto word = static_cast<uint32_t>(stream.Bits(i) >> 32);
      weight.data.append(reinterpret_cast<const char*>(&word), sizeof word);
    }
    // Numbers uniform in [0, 2^bits): scale them to the deviation, ± a quarter; every third scale
    // is negative; biases put the middle near zero.
    const int64_t groups = inputs / spec_.group;
    const double steps = static_cast<double>((1 << bits) - 1);
    const auto scale = static_cast<float>(deviation * std::sqrt(12.0) / steps);
    const auto middle = static_cast<float>(steps / 2.0);
    SynthTensor scales{module + ".scales", HeaderDType(spec_.dtype), {outputs, groups}, {}};
    SynthTensor biases{module + ".biases", HeaderDType(spec_.dtype), {outputs, groups}, {}};
    const Stream scale_stream(spec_.seed, scales.name), bias_stream(spec_.seed, biases.name);
    for (uint64_t i = 0; i < static_cast<uint64_t>(outputs * groups); ++i) {
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

}  // namespace

std::vector<SynthTensor> SynthTensors(const SynthSpec& s) {
  Builder b(s);
  const int q_size = s.heads * s.head_dim, kv_size = s.kv_heads * s.head_dim;
  b.Matrix("model.embed_tokens", s.vocab, s.hidden, s.logit_std);
  for (int i = 0; i < s.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    b.Vector(layer + "input_layernorm.weight", s.hidden, 1.0f, 0.5f);
    b.Matrix(attention + "q_proj", q_size, s.hidden, 1.5);
    b.Matrix(attention + "k_proj", kv_size, s.hidden, 1.5);
    b.Matrix(attention + "v_proj", kv_size, s.hidden, 1.0);
    if (s.model_type == "qwen2") {
      b.Vector(attention + "q_proj.bias", q_size, 0.0f, 1.0f);
      b.Vector(attention + "k_proj.bias", kv_size, 0.0f, 1.0f);
      b.Vector(attention + "v_proj.bias", kv_size, 0.0f, 0.5f);
    } else {
      b.Vector(attention + "q_norm.weight", s.head_dim, 1.5f, 0.5f);
      b.Vector(attention + "k_norm.weight", s.head_dim, 1.5f, 0.5f);
    }
    b.Matrix(attention + "o_proj", s.hidden, q_size, 1.0);
    b.Vector(layer + "post_attention_layernorm.weight", s.hidden, 1.0f, 0.5f);
    b.Matrix(mlp + "gate_proj", s.feed_forward, s.hidden, 1.5);
    b.Matrix(mlp + "up_proj", s.feed_forward, s.hidden, 1.0);
    b.Matrix(mlp + "down_proj", s.hidden, s.feed_forward, 1.0);
  }
  b.Vector("model.norm.weight", s.hidden, 1.0f, 0.25f);
  if (!s.tied) b.Matrix("lm_head", s.vocab, s.hidden, s.logit_std);
  return b.Take();
}

std::string SynthConfigJson(const SynthSpec& s) {
  const auto number = [](const char* key, int value) {
    return "  \"" + std::string(key) + "\": " + std::to_string(value) + ",\n";
  };
  std::string json = "{\n  \"model_type\": \"" + s.model_type + "\",\n";
  json += number("hidden_size", s.hidden) + number("num_hidden_layers", s.layers) +
          number("num_attention_heads", s.heads) + number("num_key_value_heads", s.kv_heads) +
          number("head_dim", s.head_dim) + number("intermediate_size", s.feed_forward) +
          number("vocab_size", s.vocab) + number("max_position_embeddings", 4096) +
          number("eos_token_id", 2);
  json += "  \"rms_norm_eps\": 1e-06,\n  \"rope_theta\": 10000.0,\n  \"hidden_act\": \"silu\",\n";
  json += std::string("  \"tie_word_embeddings\": ") + (s.tied ? "true" : "false");
  if (s.bits != 0) {
    const auto quant = [&](int bits) {
      return "\"group_size\": " + std::to_string(s.group) + ", \"bits\": " + std::to_string(bits);
    };
    json += ",\n  \"quantization\": {" + quant(s.bits);
    for (const auto& [module, bits] : s.overrides)
      json += ", \"" + module + "\": " + (bits == 0 ? "false" : "{" + quant(bits) + "}");
    json += "}";
  }
  return json + "\n}\n";
}

std::string SafetensorsBytes(const std::vector<SynthTensor>& tensors, size_t pad) {
  std::string header = "{", data;
  for (const SynthTensor& tensor : tensors) {
    if (header.size() > 1) header += ",";
    header += "\"" + tensor.name + "\":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      header += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + tensor.data.size()) + "]}";
    data += tensor.data;
  }
  header += "}" + std::string(pad, ' ');
  const uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + header + data;
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
    WriteText(dir / "model.safetensors", SafetensorsBytes(tensors));
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
    WriteText(dir / name, SafetensorsBytes(part, shard));
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
