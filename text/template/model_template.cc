#include "text/template/model_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/file.h"
#include "base/limits.h"

namespace perdure::text {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDefault = "default";
constexpr std::string_view kToolUse = "tool_use";
constexpr std::string_view kMoreFolder = "additional_chat_templates";
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

// nullopt when the file does not exist.
Result<std::optional<Json>> ReadJsonObject(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::optional<Json>();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits::kModelJsonBytesMax));
  ASSIGN_OR_RETURN(Json json, ParseJson(text, path.string(), ErrorCode::bad_model));
  if (!json.is_object())
    return Err(ErrorCode::bad_model, fmt::format("{} is not a JSON object", path.string()));
  return std::optional<Json>(std::move(json));
}

// A token stands there as a string, as an object with "content", or as null.
std::optional<std::string> TokenText(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) return std::nullopt;
  const Json* text = &*it;
  if (text->is_object()) {
    const auto content = text->find("content");
    if (content == text->end()) return std::nullopt;
    text = &*content;
  }
  if (!text->is_string()) return std::nullopt;
  return text->get<std::string>();
}

class Loader {
 public:
  explicit Loader(fs::path folder) : folder_(std::move(folder)) {}

  Result<ModelTemplate> Load() {
    ASSIGN_OR_RETURN(const auto config, ReadJsonObject(folder_ / "tokenizer_config.json"));
    RETURN_IF_ERROR(LoadSpecialTokens(config));
    RETURN_IF_ERROR(LoadFiles());
    if (model_.templates.empty()) {
      ASSIGN_OR_RETURN(const auto json, ReadJsonObject(folder_ / "chat_template.json"));
      if (json) RETURN_IF_ERROR(LoadEntry(*json, "chat_template.json"));
    }
    if (model_.templates.empty() && config)
      RETURN_IF_ERROR(LoadEntry(*config, "tokenizer_config.json"));
    return std::move(model_);
  }

 private:
  Status LoadSpecialTokens(const std::optional<Json>& config) {
    ASSIGN_OR_RETURN(const auto map, ReadJsonObject(folder_ / "special_tokens_map.json"));
    for (const char* key : kSpecialTokens) {
      for (const auto* object : {&config, &map}) {
        if (!*object) continue;
        if (auto text = TokenText(**object, key)) {
          model_.special_tokens[key] = std::move(*text);
          break;
        }
      }
    }
    return {};
  }

  Status LoadFiles() {
    std::error_code error;
    if (fs::exists(folder_ / "chat_template.jinja", error))
      RETURN_IF_ERROR(LoadFile("chat_template.jinja", std::string(kDefault)));
    std::vector<std::string> names;
    for (fs::directory_iterator it(folder_ / kMoreFolder, error), end; !error && it != end;
         it.increment(error)) {
      if (it->path().extension() == ".jinja") names.push_back(it->path().stem().string());
    }
    std::sort(names.begin(), names.end());
    if (names.size() > limits::kTemplatesMax)
      return Err(ErrorCode::bad_model, fmt::format("{} has {} templates, at most {} are read",
                                                   (folder_ / kMoreFolder).string(), names.size(),
                                                   limits::kTemplatesMax));
    for (const std::string& name : names)
      RETURN_IF_ERROR(LoadFile(fmt::format("{}/{}.jinja", kMoreFolder, name), name));
    return {};
  }

  Status LoadFile(const std::string& file, std::string name) {
    ASSIGN_OR_RETURN(const std::string source, ReadFile(folder_ / file, limits::kTemplateBytesMax));
    Add(std::move(name), source, file);
    return {};
  }

  // The chat_template of a JSON file.
  Status LoadEntry(const Json& object, const std::string& file) {
    const auto it = object.find("chat_template");
    if (it == object.end() || it->is_null()) return {};
    if (it->is_string()) {
      Add(std::string(kDefault), it->get_ref<const std::string&>(), file);
      return {};
    }
    if (!it->is_array())
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: chat_template must be a string or a list, but is {}",
                             (folder_ / file).string(), JsonTypeName(*it)));
    if (it->size() > limits::kTemplatesMax)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: chat_template has {} entries, at most {} are read",
                             (folder_ / file).string(), it->size(), limits::kTemplatesMax));
    for (const Json& entry : *it) {
      const auto name = entry.is_object() ? entry.find("name") : entry.end();
      const auto text = entry.is_object() ? entry.find("template") : entry.end();
      if (name == entry.end() || text == entry.end() || !name->is_string() || !text->is_string())
        return Err(ErrorCode::bad_model,
                   fmt::format("{}: an entry of chat_template is no {{name, template}}",
                               (folder_ / file).string()));
      Add(name->get<std::string>(), text->get_ref<const std::string&>(),
          fmt::format("{}, \"{}\"", file, name->get_ref<const std::string&>()));
    }
    return {};
  }

  // A later one of the same name replaces the earlier, as in transformers.
  void Add(std::string name, const std::string& source, const std::string& where) {
    NamedTemplate entry;
    auto chat = ChatTemplate::Parse(source, fmt::format("chat template ({})", where));
    if (chat) {
      entry.chat = std::move(*chat);
      entry.tool_calls = FindToolCallForm(*entry.chat, model_.special_tokens);
    } else {
      entry.problem = chat.error().message;
    }
    std::erase_if(model_.templates, [&](const NamedTemplate& old) { return old.name == name; });
    entry.name = std::move(name);
    entry.source = source;
    entry.file = where;
    model_.templates.push_back(std::move(entry));
  }

  const fs::path folder_;
  ModelTemplate model_;
};

}  // namespace

Result<const NamedTemplate*> ModelTemplate::Choose(std::string_view name, bool has_tools) const {
  const auto find = [this](std::string_view wanted) -> const NamedTemplate* {
    for (const NamedTemplate& entry : templates)
      if (entry.name == wanted) return &entry;
    return nullptr;
  };
  const NamedTemplate* found = nullptr;
  if (!name.empty()) {
    found = find(name);
  } else {
    if (has_tools) found = find(kToolUse);
    if (found == nullptr) found = find(kDefault);
  }
  if (found == nullptr) {
    std::string names;
    for (const NamedTemplate& entry : templates) names += (names.empty() ? "" : ", ") + entry.name;
    return Err(ErrorCode::unsupported,
               fmt::format("the model has no chat template named '{}'; it has: {}",
                           name.empty() ? kDefault : name, names.empty() ? "none" : names));
  }
  if (found->chat == nullptr)
    return Err(ErrorCode::unsupported,
               fmt::format("the model's chat template cannot be used: {}; use /v1/completions with "
                           "the whole prompt, or put a chat_template.jinja into the model's folder",
                           found->problem));
  return found;
}

std::string ModelTemplate::SpecialToken(const std::string& key) const {
  const auto it = special_tokens.find(key);
  return it == special_tokens.end() ? std::string() : it->second;
}

Result<ModelTemplate> LoadModelTemplate(const fs::path& model_dir) {
  return Loader(model_dir).Load();
}

}  // namespace perdure::text
