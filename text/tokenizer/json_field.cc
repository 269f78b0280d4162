#include "text/tokenizer/json_field.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace perdure::text {

tl::unexpected<Error> JsonField::Bad(std::string_view reason) const {
  return Err(ErrorCode::bad_model,
             fmt::format("{}: {}{}{}", file_, path_, path_.empty() ? "" : " ", reason));
}

tl::unexpected<Error> JsonField::Unsupported(std::string_view reason) const {
  return Err(ErrorCode::unsupported,
             fmt::format("{}: {}{}{}", file_, path_, path_.empty() ? "" : " ", reason));
}

tl::unexpected<Error> JsonField::WrongType(std::string_view wanted) const {
  return Bad(fmt::format("must be of type {}, but is of type {}", wanted, JsonTypeName(*value_)));
}

JsonField JsonField::Child(const Json& value, std::string_view key) const {
  return JsonField(value, file_,
                   path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

Status JsonField::ExpectObject() const {
  if (!value_->is_object()) return WrongType("object");
  return {};
}

Result<std::optional<JsonField>> JsonField::Member(std::string_view key) const {
  RETURN_IF_ERROR(ExpectObject());
  const auto it = value_->find(std::string(key));
  if (it == value_->end() || it->is_null()) return std::optional<JsonField>();
  return std::optional<JsonField>(Child(*it, key));
}

Result<JsonField> JsonField::RequireMember(std::string_view key) const {
  ASSIGN_OR_RETURN(auto member, Member(key));
  if (!member) return Bad(fmt::format("has no \"{}\"", key));
  return std::move(*member);
}

Result<bool> JsonField::GetBool(std::string_view key, bool fallback) const {
  ASSIGN_OR_RETURN(auto member, Member(key));
  if (!member) return fallback;
  if (!member->value_->is_boolean()) return member->WrongType("boolean");
  return member->value_->get<bool>();
}

Result<int64_t> JsonField::GetInt(std::string_view key, int64_t min, int64_t max,
                                  std::optional<int64_t> fallback) const {
  ASSIGN_OR_RETURN(auto member, Member(key));
  if (!member) {
    if (fallback) return *fallback;
    return Bad(fmt::format("has no \"{}\"", key));
  }
  return member->AsInt(min, max);
}

Result<int64_t> JsonField::AsInt(int64_t min, int64_t max) const {
  if (!value_->is_number_integer()) return WrongType("integer");
  // Unsigned numbers above 2^63 would turn negative.
  const bool huge =
      value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t value = huge ? INT64_MAX : value_->get<int64_t>();
  if (huge || value < min || value > max)
    return Bad(fmt::format("is {}, but must be between {} and {}", DumpJson(*value_), min, max));
  return value;
}

Result<std::string_view> JsonField::AsString() const {
  if (!value_->is_string()) return WrongType("string");
  return std::string_view(value_->get_ref<const std::string&>());
}

Result<std::optional<std::string_view>> JsonField::GetString(std::string_view key) const {
  ASSIGN_OR_RETURN(auto member, Member(key));
  if (!member) return std::optional<std::string_view>();
  ASSIGN_OR_RETURN(const std::string_view value, member->AsString());
  return std::optional<std::string_view>(value);
}

Result<std::string_view> JsonField::RequireString(std::string_view key) const {
  ASSIGN_OR_RETURN(auto member, RequireMember(key));
  return member.AsString();
}

Result<size_t> JsonField::Elements() const {
  if (!value_->is_array()) return WrongType("array");
  return value_->size();
}

JsonField JsonField::At(size_t index) const {
  return JsonField((*value_)[index], file_, fmt::format("{}[{}]", path_, index));
}

}  // namespace perdure::text
