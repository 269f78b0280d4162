#include <fmt/format.h>

#include <bit>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "text/tokenizer/bpe.h"

namespace perdure::text {

Result<Vocabulary> Vocabulary::FromJson(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  const Json& json = field.json();
  Vocabulary vocabulary;
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
  vocabulary.entries_.resize(static_cast<size_t>(largest) + 1);
  vocabulary.contents_.reserve(bytes);
  vocabulary.slots_.assign(std::bit_ceil(json.size() * 2), -1);
  const size_t mask = vocabulary.slots_.size() - 1;
  for (const auto& [content, json_id] : json.items()) {
    const TokenId id = json_id.get<TokenId>();
    Entry& entry = vocabulary.entries_[static_cast<size_t>(id)];
    if (entry.length != kHole) {
      return field.Bad(fmt::format("gives the id {} to both \"{}\" and \"{}\"", id,
                                   vocabulary.ContentOf(id), content));
    }
    entry = {static_cast<uint32_t>(vocabulary.contents_.size()),
             static_cast<uint32_t>(content.size())};
    vocabulary.contents_ += content;
    size_t slot = std::hash<std::string_view>()(content) & mask;
    while (vocabulary.slots_[slot] >= 0) slot = (slot + 1) & mask;
    vocabulary.slots_[slot] = id;
  }
  return vocabulary;
}

std::optional<TokenId> Vocabulary::Find(std::string_view content) const {
  if (slots_.empty()) return std::nullopt;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = std::hash<std::string_view>()(content) & mask; slots_[slot] >= 0;
       slot = (slot + 1) & mask) {
    if (ContentOf(slots_[slot]) == content) return slots_[slot];
  }
  return std::nullopt;
}

bool Vocabulary::Has(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].length != kHole;
}

std::string_view Vocabulary::ContentOf(TokenId id) const {
  if (!Has(id)) return {};
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return std::string_view(contents_).substr(entry.begin, entry.length);
}

}  // namespace perdure::text
