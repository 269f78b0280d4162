#include "tests/worker/fake_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace perdure::worker {
namespace {

// One 64-bit state a position, in the first numbers of its key.
static_assert(kFakeKv.head_dim / 2 >= int{sizeof(uint64_t)});  // fits all precisions

uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCD;
  x ^= x >> 33;
  x *= 0xC4CEB9FE1A85EC53;
  return x ^ (x >> 33);
}

uint64_t NextState(uint64_t state, int position, TokenId token) {
  return Mix(state * 31 +
             Mix(static_cast<uint64_t>(position) << 32 | static_cast<uint32_t>(token)));
}

// Finite as binary16, four of them.
uint64_t Storable(uint64_t state) { return state & 0xBFFF'BFFF'BFFF'BFFF; }

// Where a part of a position's state lies, halves or bytes: keys stand in columns.
std::byte* PartOf(const engine::KvView& kv, int position, size_t part, size_t part_bytes) {
  const size_t page = static_cast<size_t>(position / engine::kPageTokens);
  CHECK(page < kv.pages.size() && kv.pages[page] != nullptr);
  const auto column = static_cast<size_t>(position % engine::kPageTokens);
  return kv.pages[page] + part_bytes * (part * engine::kPageTokens + column);
}
size_t PartBytes(const engine::KvView& kv, int position) {
  return kv.PrecisionOf(static_cast<size_t>(position / engine::kPageTokens)) ==
                 engine::KvPrecision::kF16
             ? sizeof(uint16_t)
             : 1;
}

uint64_t StateAt(const engine::KvView& kv, int position) {
  const size_t bytes = PartBytes(kv, position);
  uint64_t state = 0;
  for (size_t at = 0; at < sizeof state; at += bytes)
    std::memcpy(reinterpret_cast<std::byte*>(&state) + at, PartOf(kv, position, at / bytes, bytes),
                bytes);
  return state;
}
void SetState(const engine::KvView& kv, int position, uint64_t state) {
  const size_t bytes = PartBytes(kv, position);
  for (size_t at = 0; at < sizeof state; at += bytes)
    std::memcpy(PartOf(kv, position, at / bytes, bytes), reinterpret_cast<std::byte*>(&state) + at,
                bytes);
}

}  // namespace

FakeEngine::FakeEngine(const FakeModelOptions& options) : options_(options) {
  info_.architecture = "fake";
  info_.quantization = "none";
  info_.layers = 1;
  info_.vocab_size = options.vocab_size;
  info_.max_context = options.max_context;
  info_.kv = kFakeKv;
  info_.eos_ids = {options.eos};
}

void FakeEngine::Logits(uint64_t state, float* row) const {
  for (int id = 0; id < options_.vocab_size; ++id) {
    // Even bits, so that an answer is text: bytes of ASCII letters are the likely ones.
    const bool letter = (id >= 'a' && id <= 'z') || id == ' ';
    const uint64_t hash = Mix(state ^ Mix(static_cast<uint64_t>(id)));
    row[id] = (letter ? 2.0f : -8.0f) + static_cast<float>(hash >> 40) * 0x1p-22f;
  }
  row[options_.eos] += options_.eos_logit + 10.0f;
}

std::span<const float> FakeEngine::Step(std::span<const engine::SequenceStep> sequences) {
  if (options_.on_step) options_.on_step(sequences);
  logits_.clear();
  for (const engine::SequenceStep& sequence : sequences) {
    uint64_t state = 0;
    if (sequence.start > 0) state = StateAt(sequence.kv, sequence.start - 1);
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      const int position = sequence.start + static_cast<int>(i);
      CHECK(sequence.tokens[i] >= 0 && sequence.tokens[i] < options_.vocab_size);
      state =
          Storable(NextState(state, position, sequence.tokens[i]) ^ Seen(sequence.kv, position));
      SetState(sequence.kv, position, state);
      if (static_cast<int>(i) < sequence.logits_from) continue;
      logits_.resize(logits_.size() + static_cast<size_t>(options_.vocab_size));
      Logits(state, logits_.data() + logits_.size() - options_.vocab_size);
    }
  }
  return logits_;
}

// As far as it differs from all of the past in 16 bits: by what the position sees, read from where
// it lies, and by how it is stored.
uint64_t FakeEngine::Seen(const engine::KvView& kv, int position) {
  uint64_t seen = 0;
  const engine::KvRetention retention = kv.RetentionAt(position);
  if (retention.size > 0 && position >= retention.size) {
    const auto look = [&](int at) { seen = Mix(seen ^ StateAt(kv, at)); };
    for (int at = 0; at < retention.keep; ++at) look(at);
    for (int at = position + 1 - (retention.size - retention.keep); at < position; ++at) look(at);
  }
  const auto precision = kv.PrecisionOf(static_cast<size_t>(position / engine::kPageTokens));
  return precision == engine::KvPrecision::kF16 ? seen
                                                : Mix(seen + static_cast<uint64_t>(precision));
}

TokenId FakeEngine::Greedy(std::span<const TokenId> tokens) const {
  uint64_t state = 0;
  for (size_t i = 0; i < tokens.size(); ++i)
    state = Storable(NextState(state, static_cast<int>(i), tokens[i]));
  std::vector<float> row(static_cast<size_t>(options_.vocab_size));
  Logits(state, row.data());
  TokenId best = 0;
  for (TokenId id = 1; id < options_.vocab_size; ++id) {
    if (row[static_cast<size_t>(id)] > row[static_cast<size_t>(best)]) best = id;
  }
  return best;
}

FakeTokenizer::FakeTokenizer(const FakeModelOptions& options) : prefix_(options.prefix) {
  for (int i = 0; i < 256; ++i) bytes_.push_back(std::string(1, static_cast<char>(i)));
  for (const char* special : {"<bos>", "<eos>", "<user>", "<end>"}) bytes_.push_back(special);
  for (const std::string& bytes : bytes_) first_bytes_.push_back(options.first_mark + bytes);
}

Result<std::vector<TokenId>> FakeTokenizer::Encode(std::string_view text,
                                                   std::span<const text::TextRange> literal) const {
  std::vector<TokenId> ids;
  const auto is_literal = [literal](size_t begin, size_t end) {
    for (const text::TextRange& range : literal) {
      if (begin < range.end && range.begin < end) return true;
    }
    return false;
  };
  for (size_t i = 0; i < text.size();) {
    TokenId special = 0;
    for (TokenId id = 256; id < 260 && special == 0; ++id) {
      const std::string& content = bytes_[static_cast<size_t>(id)];
      if (text.substr(i).starts_with(content) && !is_literal(i, i + content.size())) special = id;
    }
    ids.push_back(special != 0 ? special : static_cast<unsigned char>(text[i]));
    i += special != 0 ? bytes_[static_cast<size_t>(special)].size() : 1;
  }
  return ids;
}

std::string_view FakeTokenizer::TokenBytes(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= bytes_.size()) return {};
  return bytes_[static_cast<size_t>(id)];
}

std::string_view FakeTokenizer::FirstTokenBytes(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= bytes_.size()) return {};
  return first_bytes_[static_cast<size_t>(id)];
}

std::optional<TokenId> FakeTokenizer::IdOf(std::string_view content) const {
  for (size_t id = 0; id < bytes_.size(); ++id) {
    if (bytes_[id] == content) return static_cast<TokenId>(id);
  }
  return std::nullopt;
}

Result<text::RenderedPrompt> FakeTemplate::Render(const Json& context,
                                                  const std::vector<std::string>&,
                                                  const text::TemplateTime& time) const {
  text::RenderedPrompt prompt;
  for (const Json& message : context["messages"]) {
    prompt.text += "<user>";
    const std::string content = message["content"].get<std::string>();
    if (content == "!") return Err(ErrorCode::bad_template, "the template does not like '!'");
    prompt.input.push_back({prompt.text.size(), prompt.text.size() + content.size()});
    prompt.text += content + "<end>";
  }
  if (context.contains("say_time")) prompt.text += std::to_string(time.unix_time);
  return prompt;
}

FakeModel MakeFakeModel(const FakeModelOptions& options) {
  FakeModel fake;
  auto engine = std::make_unique<FakeEngine>(options);
  fake.engine = engine.get();
  fake.model.name = "fake";
  fake.model.engine = std::move(engine);
  fake.model.tokenizer = std::make_unique<FakeTokenizer>(options);
  fake.model.chat.templates.emplace_back();
  fake.model.chat.templates[0].name = "default";
  fake.model.chat.templates[0].chat = std::make_unique<FakeTemplate>();
  fake.model.chat.special_tokens = {{"bos_token", "<bos>"}, {"eos_token", "<eos>"}};
  CollectEosIds(&fake.model);
  CHECK(FindChatForms(&fake.model, ""));
  return fake;
}

}  // namespace perdure::worker
