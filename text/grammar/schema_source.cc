#include "text/grammar/schema_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/brief.h"
#include "base/limits.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// What a URI fragment says.
std::optional<std::string> PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned byte = 0;
    const char* begin = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(begin, begin + 2, byte, 16).ptr != begin + 2)
      return std::nullopt;
    decoded += static_cast<char>(byte);
    i += 2;
  }
  return decoded;
}

// A part of a JSON pointer: "~1" is "/", "~0" is "~".
std::string Unescaped(std::string_view part) {
  std::string text;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '~' && i + 1 < part.size() && (part[i + 1] == '0' || part[i + 1] == '1'))
      text += part[++i] == '0' ? '~' : '/';
    else
      text += part[i];
  }
  return text;
}

}  // namespace

SchemaSource::SchemaSource(const Json& root)
    : root_(root), places_{{0, {}, 0}}, ancestry_{{nullptr, 0}} {}

uint32_t SchemaSource::AddPlace(uint32_t parent, std::string_view key, int64_t index) {
  places_.push_back({parent, key, index});
  return static_cast<uint32_t>(places_.size() - 1);
}

std::pair<std::string_view, const Json*> SchemaSource::Member(const Json& object,
                                                              const std::string& name) {
  if (object.size() < 16) {
    const auto found = object.find(name);
    if (found == object.end()) return {};
    return {found.key(), &*found};
  }
  auto& members = members_[&object];
  if (members.empty())
    for (auto entry = object.begin(); entry != object.end(); ++entry)
      members.emplace(entry.key(), std::pair(std::string_view(entry.key()), &*entry));
  const auto found = members.find(name);
  return found == members.end() ? std::pair<std::string_view, const Json*>() : found->second;
}

Subschema SchemaSource::Child(const Subschema& parent, std::string_view keyword, const Json& json) {
  return {&json, AddPlace(parent.place, keyword, 0), 0};
}

Subschema SchemaSource::Child(const Subschema& parent, std::string_view keyword,
                              std::string_view key, const Json& json) {
  return {&json, AddPlace(AddPlace(parent.place, keyword, 0), key, 0), 0};
}

Subschema SchemaSource::Child(const Subschema& parent, std::string_view keyword, size_t index,
                              const Json& json) {
  return {&json, AddPlace(AddPlace(parent.place, keyword, 0), {}, static_cast<int64_t>(index)), 0};
}

Result<Subschema> SchemaSource::Applied(const Subschema& parent, Subschema child) {
  // The parent may be the first of its line.
  uint32_t line = parent.ancestry;
  if (line == 0) {
    ancestry_.push_back({parent.json, 0});
    line = static_cast<uint32_t>(ancestry_.size() - 1);
  }
  size_t length = 1;
  for (uint32_t at = line; at != 0; at = ancestry_[at].parent, ++length)
    if (ancestry_[at].json == child.json)
      return Fail(parent, "$ref", "leads back to itself without anything between");
  RETURN_IF_ERROR(Spend(length / 16 + 1));
  ancestry_.push_back({child.json, line});
  child.ancestry = static_cast<uint32_t>(ancestry_.size() - 1);
  return child;
}

Result<Subschema> SchemaSource::Resolve(const Subschema& from, const Json& reference) {
  if (!reference.is_string()) return Fail(from, "$ref", "must be a string");
  const std::string& text = reference.get_ref<const std::string&>();
  const auto fail = [&](std::string_view what) {
    return Fail(from, "$ref", fmt::format("is \"{}\": {}", Brief(text, 200), what));
  };
  if (!text.starts_with('#')) return fail("only references within the schema are supported");
  const auto decoded = PercentDecoded(std::string_view(text).substr(1));
  if (!decoded) return fail("it is no valid reference");
  Subschema at = {&root_, 0, 0};
  if (!decoded->empty() && decoded->front() != '/')
    return fail("references by $anchor are not supported");
  RETURN_IF_ERROR(Spend(1));
  for (size_t begin = 0; begin < decoded->size();) {
    const size_t end = std::min(decoded->find('/', begin + 1), decoded->size());
    const std::string part =
        Unescaped(std::string_view(*decoded).substr(begin + 1, end - begin - 1));
    begin = end;
    RETURN_IF_ERROR(Spend(1));
    if (at.json->is_object()) {
      const auto [name, value] = Member(*at.json, part);
      if (!value) return fail("there is nothing in this place");
      at = Child(at, name, *value);
    } else if (at.json->is_array()) {
      size_t index = 0;
      const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
      if (parsed.ec != std::errc() || parsed.ptr != part.data() + part.size() ||
          index >= at.json->size())
        return fail("there is nothing in this place");
      at.place = AddPlace(at.place, {}, static_cast<int64_t>(index));
      at.json = &(*at.json)[index];
    } else {
      return fail("there is nothing in this place");
    }
  }
  return Applied(from, at);
}

std::string SchemaSource::PointerOf(const Subschema& schema) const {
  std::vector<uint32_t> path;
  for (uint32_t at = schema.place; at != 0; at = places_[at].parent) path.push_back(at);
  std::string pointer = "#";
  for (size_t i = path.size(); i-- > 0;) {
    const Place& place = places_[path[i]];
    pointer += '/';
    if (place.key.data() == nullptr) {
      pointer += std::to_string(place.index);
      continue;
    }
    for (const char c : place.key) {
      if (c == '~' || c == '/')
        pointer += c == '~' ? "~0" : "~1";
      else
        pointer += c;
    }
  }
  return Brief(std::move(pointer), 300);
}

tl::unexpected<Error> SchemaSource::Fail(const Subschema& at, std::string_view keyword,
                                         std::string_view what) const {
  return Err(ErrorCode::invalid_request,
             fmt::format("schema keyword \"{}\" at {} {}", keyword, PointerOf(at), what));
}

tl::unexpected<Error> SchemaSource::Unsupported(const Subschema& at,
                                                std::string_view keyword) const {
  return Fail(at, keyword, "is not supported");
}

Status SchemaSource::Spend(size_t steps) {
  steps_ += static_cast<int64_t>(steps);
  if (steps_ <= limits::kGrammarSchemaStepsMax) return {};
  return Err(ErrorCode::invalid_request,
             "the schema is too large, or combines too many alternatives");
}

}  // namespace perdure::text
