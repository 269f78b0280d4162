// A model without weights: its logits are a hash of the tokens so far, read back from the KV pages
// that the worker hands it, and of what else a position sees of its past. A page lost, shared,
// swapped, of another precision or computed twice changes every token that follows, or fails a
// check here at once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"
#include "worker/model.h"

namespace perdure::worker {

inline constexpr engine::KvShape kFakeKv{1, 1, 64};

struct FakeModelOptions {
  int vocab_size = 260;  // bytes, then <bos> <eos> <user> <end>
  int max_context = 512;
  TokenId eos = 257;
  // What comes out more often than chance would have it: 0 for an even draw.
  float eos_logit = -20.0f;
  engine::GenerationDefaults defaults;
  std::vector<TokenId> prefix;  // what the tokenizer wants before a text
  std::string first_mark;       // stands before an answer whose first token begins a text
  // Called at every step, before it is computed.
  std::function<void(std::span<const engine::SequenceStep>)> on_step;
};

class FakeEngine : public engine::Engine {
 public:
  explicit FakeEngine(const FakeModelOptions& options);
  const engine::ModelInfo& info() const override { return info_; }
  const engine::GenerationDefaults& generation_defaults() const override {
    return options_.defaults;
  }
  std::span<const float> Step(std::span<const engine::SequenceStep> sequences) override;

  // The token that greedy sampling draws after `tokens`.
  TokenId Greedy(std::span<const TokenId> tokens) const;

 private:
  void Logits(uint64_t state, float* row) const;
  static uint64_t Seen(const engine::KvView& kv, int position);

  const FakeModelOptions options_;
  engine::ModelInfo info_;
  std::vector<float> logits_;
};

// A byte is a token; <bos>, <eos>, <user>, <end> are special.
class FakeTokenizer : public text::Tokenizer {
 public:
  explicit FakeTokenizer(const FakeModelOptions& options = {});
  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      std::span<const text::TextRange> literal) const override;
  std::span<const TokenId> prefix_ids() const override { return prefix_; }
  std::string_view TokenBytes(TokenId id) const override;
  std::string_view FirstTokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override { return id >= 256; }
  std::optional<TokenId> IdOf(std::string_view content) const override;
  int vocab_size() const override { return 260; }

 private:
  std::vector<std::string> bytes_;
  std::vector<std::string> first_bytes_;
  std::vector<TokenId> prefix_;
};

// "<user>content<end>" for each message; "!" in a content is an error of the template's own.
class FakeTemplate : public text::ChatTemplate {
 public:
  Result<text::RenderedPrompt> Render(const Json& context,
                                      const std::vector<std::string>& trusted_keys,
                                      const text::TemplateTime& time) const override;
};

struct FakeModel {
  Model model;
  FakeEngine* engine = nullptr;
};
FakeModel MakeFakeModel(const FakeModelOptions& options = {});

}  // namespace perdure::worker
