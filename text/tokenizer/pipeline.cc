#include "text/tokenizer/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "base/check.h"
#include "base/limits.h"
#include "text/tokenizer/prepared_sections.h"
#include "text/tokenizer/regex.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// Copies `in` with U+FFFD for what is no UTF-8; the marked ranges move along.
MarkedText ReplaceInvalidUtf8(std::string_view in, std::span<const TextRange> literal) {
  MarkedText out;
  out.text.reserve(in.size() + 16);
  out.literal.assign(literal.begin(), literal.end());
  size_t next_begin = 0, next_end = 0;
  for (size_t i = 0; i < in.size();) {
    const Utf8Char c = DecodeUtf8(in, i);
    const size_t end = i + static_cast<size_t>(c.length);
    // A range that begins or ends inside what becomes one character covers all of it.
    for (; next_begin < literal.size() && literal[next_begin].begin < end; ++next_begin)
      out.literal[next_begin].begin = out.text.size();
    if (c.valid) {
      out.text += in.substr(i, static_cast<size_t>(c.length));
    } else {
      out.text += kReplacementUtf8;
    }
    for (; next_end < literal.size() && literal[next_end].end <= end; ++next_end)
      out.literal[next_end].end = out.text.size();
    i = end;
  }
  return out;
}

// The part of sorted `ranges` inside `window`, relative to its begin.
std::vector<TextRange> Clip(std::span<const TextRange> ranges, TextRange window) {
  std::vector<TextRange> out;
  auto it = std::partition_point(ranges.begin(), ranges.end(),
                                 [&](const TextRange& r) { return r.end <= window.begin; });
  for (; it != ranges.end() && it->begin < window.end; ++it) {
    const size_t begin = std::max(it->begin, window.begin);
    const size_t end = std::min(it->end, window.end);
    if (begin < end) out.push_back({begin - window.begin, end - window.begin});
  }
  return out;
}

// Texts by id, in one piece of memory: its own or a prepared file's.
class TextsById {
 public:
  void Add(std::string_view text) {
    bytes_ += text;
    ends_.push_back(bytes_.size());
  }
  // After the last Add; it is not moved from then on.
  void Finish() {
    bytes_view_ = bytes_;
    ends_view_ = ends_;
  }
  Status Map(const PreparedFile& file, const std::string& name) {
    ASSIGN_OR_RETURN(const auto bytes, ReadSection<char>(file, name + " bytes"));
    ASSIGN_OR_RETURN(ends_view_, ReadSection<uint64_t>(file, name + " ends"));
    bytes_view_ = {bytes.data(), bytes.size()};
    return {};
  }
  Status Prepare(PreparedWriter& writer, const std::string& name) const {
    RETURN_IF_ERROR(AddSection<char>(writer, name + " bytes", bytes_view_));
    return AddSection<uint64_t>(writer, name + " ends", ends_view_);
  }
  int size() const { return static_cast<int>(ends_view_.size()); }
  size_t bytes() const { return bytes_.size(); }
  // Empty for ids that do not exist.
  std::string_view Of(TokenId id) const {
    if (id < 0 || id >= size()) return {};
    const size_t begin = id == 0 ? 0 : ends_view_[static_cast<size_t>(id) - 1];
    return bytes_view_.substr(begin, ends_view_[static_cast<size_t>(id)] - begin);
  }

 private:
  std::string bytes_;
  std::vector<uint64_t> ends_;
  std::string_view bytes_view_;
  std::span<const uint64_t> ends_view_;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  PipelineTokenizer(TokenizerParts parts, AddedTokenFinder raw_finder,
                    AddedTokenFinder normalized_finder)
      : model_(std::move(parts.model)),
        normalizer_(std::move(parts.normalizer)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        around_(std::move(parts.around)),
        prepared_(std::move(parts.prepared)),
        raw_finder_(std::move(raw_finder)),
        normalized_finder_(std::move(normalized_finder)) {}
  // To be called once, before all else.
  Status FillTexts(const Decoder& decoder, const std::vector<AddedToken>& added,
                   std::string_view file);

  Status Prepare(PreparedWriter& writer) const override;

  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      std::span<const TextRange> literal) const override;
  std::span<const TokenId> prefix_ids() const override { return around_.before; }
  std::span<const TokenId> suffix_ids() const override { return around_.after; }
  std::string_view TokenBytes(TokenId id) const override { return texts_.Of(id); }
  std::string_view FirstTokenBytes(TokenId id) const override {
    return first_texts_.size() > 0 ? first_texts_.Of(id) : texts_.Of(id);
  }
  bool IsSpecial(TokenId id) const override;
  std::optional<TokenId> IdOf(std::string_view content) const override;
  int vocab_size() const override { return texts_.size(); }

 private:
  // What one Encode call works with.
  struct Call {
    RegexRunner runner;
    WordScratch scratch;
    Words words;
    std::vector<TokenId> ids;
  };

  // Ordinary text, as far as pass 1 is concerned.
  Status EncodePart(MarkedText part, Call& call) const;
  Status EncodeWords(std::string text, bool at_start, Call& call) const;

  Status MakeTexts(const Decoder& decoder,
                   const std::unordered_map<TokenId, const AddedToken*>& added_by_id,
                   std::string_view file);
  Status MapTexts();

  std::unique_ptr<WordModel> model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AroundText around_;
  std::shared_ptr<const PreparedFile> prepared_;
  AddedTokenFinder raw_finder_;         // normalized = false
  AddedTokenFinder normalized_finder_;  // normalized = true
  std::unordered_map<std::string, TokenId> added_ids_;
  TextsById texts_;
  TextsById first_texts_;         // of tokens that begin a text; empty where that changes nothing
  std::vector<uint8_t> special_;  // by id
};

Status PipelineTokenizer::FillTexts(const Decoder& decoder, const std::vector<AddedToken>& added,
                                    std::string_view file) {
  const Vocabulary& vocabulary = model_->vocabulary();
  std::unordered_map<TokenId, const AddedToken*> added_by_id;
  for (const AddedToken& token : added) {
    added_by_id[token.id] = &token;
    added_ids_[token.content] = token.id;
  }
  if (prepared_ != nullptr)
    RETURN_IF_ERROR(MapTexts());
  else
    RETURN_IF_ERROR(MakeTexts(decoder, added_by_id, file));
  for (const auto* ids : {&around_.before, &around_.after}) {
    for (const TokenId id : *ids) {
      if (added_by_id.contains(id) || vocabulary.Has(id)) continue;
      return Err(
          ErrorCode::bad_model,
          fmt::format("{}: post_processor adds the token {}, which does not exist", file, id));
    }
  }
  return {};
}

Status PipelineTokenizer::Prepare(PreparedWriter& writer) const {
  RETURN_IF_ERROR(model_->Prepare(writer));
  RETURN_IF_ERROR(texts_.Prepare(writer, "texts"));
  RETURN_IF_ERROR(first_texts_.Prepare(writer, "first texts"));
  return AddSection<uint8_t>(writer, "special", special_);
}

Status PipelineTokenizer::MapTexts() {
  RETURN_IF_ERROR(texts_.Map(*prepared_, "texts"));
  RETURN_IF_ERROR(first_texts_.Map(*prepared_, "first texts"));
  ASSIGN_OR_RETURN(const auto special, ReadSection<uint8_t>(*prepared_, "special"));
  special_.assign(special.begin(), special.end());
  return {};
}

Status PipelineTokenizer::MakeTexts(
    const Decoder& decoder, const std::unordered_map<TokenId, const AddedToken*>& added_by_id,
    std::string_view file) {
  const Vocabulary& vocabulary = model_->vocabulary();
  int size = vocabulary.size();
  for (const auto& [id, token] : added_by_id) size = std::max(size, id + 1);
  special_.assign(static_cast<size_t>(size), 0);
  for (TokenId id = 0; id < size; ++id) {
    const auto it = added_by_id.find(id);
    const AddedToken* token = it == added_by_id.end() ? nullptr : it->second;
    if (token != nullptr) special_[static_cast<size_t>(id)] = token->special;
    const bool exists = token != nullptr || vocabulary.Has(id);
    const std::string_view content = token != nullptr ? token->content : vocabulary.ContentOf(id);
    const auto add = [&](bool first, TextsById* texts) -> Status {
      std::string text;
      if (exists) {
        ASSIGN_OR_RETURN(text, decoder.BytesOf(content, token != nullptr, first));
      }
      texts->Add(text);
      if (texts->bytes() <= limits::kTokenizerJsonBytesMax) return {};
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: the decoder makes more than {} bytes of all tokens", file,
                             limits::kTokenizerJsonBytesMax));
    };
    RETURN_IF_ERROR(add(false, &texts_));
    if (decoder.first_differs()) RETURN_IF_ERROR(add(true, &first_texts_));
  }
  texts_.Finish();
  first_texts_.Finish();
  return {};
}

Result<std::vector<TokenId>> PipelineTokenizer::Encode(std::string_view text,
                                                       std::span<const TextRange> literal) const {
  if (text.size() > limits::kEncodeBytesMax) {
    return Err(ErrorCode::context_length_exceeded,
               fmt::format("the prompt has {} bytes of text; at most {} can be tokenized",
                           text.size(), limits::kEncodeBytesMax));
  }
  size_t previous_end = 0;
  for (const TextRange& range : literal) {
    CHECK(previous_end <= range.begin && range.begin <= range.end && range.end <= text.size());
    previous_end = range.end;
  }
  MarkedText replaced;
  if (!IsValidUtf8(text)) {
    replaced = ReplaceInvalidUtf8(text, literal);
    text = replaced.text;
    literal = replaced.literal;
  }

  Call call{RegexRunner(text.size()), {}, {}, {}};
  std::vector<TextPart> parts;
  RETURN_IF_ERROR(raw_finder_.Find(text, literal, call.runner, &parts));
  // Marks matter from here on only to added tokens that are looked for in normalized text.
  if (normalized_finder_.empty()) literal = {};
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      call.ids.push_back(part.id);
      continue;
    }
    const TextRange range = part.range;
    RETURN_IF_ERROR(EncodePart({std::string(text.substr(range.begin, range.end - range.begin)),
                                Clip(literal, range), range.begin == 0},
                               call));
  }
  return std::move(call.ids);
}

Status PipelineTokenizer::EncodePart(MarkedText part, Call& call) const {
  if (!normalizer_.empty()) RETURN_IF_ERROR(normalizer_.Apply(&part, call.runner));
  if (normalized_finder_.empty()) return EncodeWords(std::move(part.text), part.at_start, call);
  std::vector<TextPart> parts;
  RETURN_IF_ERROR(normalized_finder_.Find(part.text, part.literal, call.runner, &parts));
  for (const TextPart& p : parts) {
    if (p.id >= 0) {
      call.ids.push_back(p.id);
    } else {
      RETURN_IF_ERROR(EncodeWords(part.text.substr(p.range.begin, p.range.end - p.range.begin),
                                  part.at_start && p.range.begin == 0, call));
    }
  }
  return {};
}

Status PipelineTokenizer::EncodeWords(std::string text, bool at_start, Call& call) const {
  RETURN_IF_ERROR(pre_tokenizer_.Apply(std::move(text), at_start, call.runner, &call.words));
  for (const TextRange word : call.words.ranges) {
    model_->Encode(std::string_view(call.words.text).substr(word.begin, word.end - word.begin),
                   &call.scratch, &call.ids);
  }
  return {};
}

bool PipelineTokenizer::IsSpecial(TokenId id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)] != 0;
}

std::optional<TokenId> PipelineTokenizer::IdOf(std::string_view content) const {
  if (const auto it = added_ids_.find(std::string(content)); it != added_ids_.end())
    return it->second;
  return model_->vocabulary().Find(content);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> AssembleTokenizer(TokenizerParts parts, std::string_view file) {
  std::vector<AddedTokenFinder::Pattern> raw, normalized;
  for (const AddedToken& token : parts.added) {
    MarkedText content{token.content, {}, false};
    if (token.normalized) {
      RegexRunner runner(content.text.size());
      RETURN_IF_ERROR(parts.normalizer.Apply(&content, runner));
    }
    if (content.text.size() > limits::kAddedTokenBytesMax * 4)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: normalizer makes {} bytes of the added token \"{}\"", file,
                             content.text.size(), token.content));
    if (token.special) parts.model->NeverWhole(token.id);
    (token.normalized ? normalized : raw)
        .push_back(
            {std::move(content.text), token.id, token.single_word, token.lstrip, token.rstrip});
  }
  ASSIGN_OR_RETURN(AddedTokenFinder raw_finder, AddedTokenFinder::Build(std::move(raw)));
  ASSIGN_OR_RETURN(AddedTokenFinder normalized_finder,
                   AddedTokenFinder::Build(std::move(normalized)));
  const Decoder decoder = std::move(parts.decoder);
  const std::vector<AddedToken> added = std::move(parts.added);
  auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(parts), std::move(raw_finder),
                                                       std::move(normalized_finder));
  RETURN_IF_ERROR(tokenizer->FillTexts(decoder, added, file));
  return tokenizer;
}

}  // namespace perdure::text
