#include "text/tokenizer/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/limits.h"
#include "text/tokenizer/prepared_sections.h"

namespace perdure::text {

Result<Vocabulary> Vocabulary::FromJson(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  const Json& json = field.json();
  TokenId largest = -1;
  size_t bytes = 0;
  for (const auto& [content, id] : json.items()) {
    // A negative number turns into a huge one.
    const bool fits = id.is_number_integer() && id.get<uint64_t>() < limits::kVocabMax;
    if (!fits) {
      return field.Bad(fmt::format("gives \"{}\" the id {}; ids are integers from 0 to {}", content,
                                   DumpJson(id), limits::kVocabMax - 1));
    }
    largest = std::max(largest, id.get<TokenId>());
    bytes += content.size();
  }
  if (largest < 0) return field.Bad("is empty");
  Vocabulary vocabulary;
  vocabulary.Reserve(static_cast<size_t>(largest) + 1, json.size(), bytes);
  for (const auto& [content, json_id] : json.items()) {
    const TokenId id = json_id.get<TokenId>();
    if (vocabulary.Has(id)) {
      return field.Bad(fmt::format("gives the id {} to both \"{}\" and \"{}\"", id,
                                   vocabulary.ContentOf(id), content));
    }
    CHECK(vocabulary.Add(id, content));  // keys of a parsed object are unique
  }
  return vocabulary;
}

Result<Vocabulary> Vocabulary::FromContents(std::span<const std::string> contents,
                                            std::string_view where) {
  CHECK(contents.size() <= static_cast<size_t>(limits::kVocabMax));
  size_t bytes = 0;
  for (const std::string& content : contents) bytes += content.size();
  Vocabulary vocabulary;
  vocabulary.Reserve(contents.size(), contents.size(), bytes);
  for (size_t i = 0; i < contents.size(); ++i) {
    if (contents[i].empty() || vocabulary.Add(static_cast<TokenId>(i), contents[i])) continue;
    return Err(ErrorCode::bad_model,
               fmt::format("{} has the token \"{}\" twice, as {} and {}", where, contents[i],
                           *vocabulary.Find(contents[i]), i));
  }
  return vocabulary;
}

Result<Vocabulary> Vocabulary::FromPrepared(const PreparedFile& file) {
  Vocabulary vocabulary;
  ASSIGN_OR_RETURN(const auto contents, ReadSection<char>(file, "vocabulary contents"));
  ASSIGN_OR_RETURN(vocabulary.entries_view_, ReadSection<Entry>(file, "vocabulary entries"));
  ASSIGN_OR_RETURN(vocabulary.slots_view_, ReadSection<TokenId>(file, "vocabulary slots"));
  vocabulary.contents_view_ = contents.data();
  for (const Entry& entry : vocabulary.entries_view_) {
    if (entry.length != kHole)
      vocabulary.longest_ = std::max<size_t>(vocabulary.longest_, entry.length);
  }
  return vocabulary;
}

Status Vocabulary::Prepare(PreparedWriter& writer) const {
  RETURN_IF_ERROR(AddSection<char>(writer, "vocabulary contents", contents_));
  RETURN_IF_ERROR(AddSection<Entry>(writer, "vocabulary entries", entries_));
  return AddSection<TokenId>(writer, "vocabulary slots", slots_);
}

void Vocabulary::Reserve(size_t ids, size_t tokens, size_t bytes) {
  entries_.resize(ids);
  contents_.reserve(bytes);
  slots_.assign(std::bit_ceil(std::max<size_t>(tokens, 1) * 2), -1);
  contents_view_ = contents_.data();
  entries_view_ = entries_;
  slots_view_ = slots_;
}

size_t Vocabulary::SlotOf(std::string_view content) const {
  const size_t mask = slots_view_.size() - 1;
  size_t slot = std::hash<std::string_view>()(content) & mask;
  while (slots_view_[slot] >= 0 && ContentOf(slots_view_[slot]) != content)
    slot = (slot + 1) & mask;
  return slot;
}

bool Vocabulary::Add(TokenId id, std::string_view content) {
  const size_t slot = SlotOf(content);
  if (slots_[slot] >= 0) return false;
  slots_[slot] = id;
  entries_[static_cast<size_t>(id)] = {static_cast<uint32_t>(contents_.size()),
                                       static_cast<uint32_t>(content.size())};
  // Within what was reserved: views stay good.
  CHECK(contents_.size() + content.size() <= contents_.capacity());
  contents_.insert(contents_.end(), content.begin(), content.end());
  longest_ = std::max(longest_, content.size());
  return true;
}

std::optional<TokenId> Vocabulary::Find(std::string_view content) const {
  if (content.size() > longest_ || slots_view_.empty()) return std::nullopt;
  const TokenId id = slots_view_[SlotOf(content)];
  if (id < 0) return std::nullopt;
  return id;
}

bool Vocabulary::Has(TokenId id) const {
  return id >= 0 && id < size() && entries_view_[static_cast<size_t>(id)].length != kHole;
}

std::string_view Vocabulary::ContentOf(TokenId id) const {
  if (!Has(id)) return {};
  const Entry& entry = entries_view_[static_cast<size_t>(id)];
  return {contents_view_ + entry.begin, entry.length};
}

}  // namespace perdure::text
