// Where a model's folder keeps its template and the special tokens that templates name.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/file.h"
#include "base/limits.h"
#include "text/template/chat_template.h"

namespace perdure::text {
namespace {

namespace fs = std::filesystem;

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

// nullopt: none; `where` names the file in errors.
Result<std::optional<std::string>> TemplateText(const Json& object, const std::string& where) {
  const auto it = object.find("chat_template");
  if (it == object.end() || it->is_null()) return std::optional<std::string>();
  if (it->is_string()) return std::optional<std::string>(it->get<std::string>());
  std::string names;
  if (it->is_array()) {
    for (const Json& entry : *it) {
      if (!entry.is_object()) continue;
      const auto name = entry.find("name");
      const auto text = entry.find("template");
      if (name == entry.end() || text == entry.end() || !name->is_string() || !text->is_string())
        continue;
      if (name->get_ref<const std::string&>() == "default")
        return std::optional<std::string>(text->get<std::string>());
      names += (names.empty() ? "" : ", ") + name->get<std::string>();
    }
    return Err(ErrorCode::bad_model,
               fmt::format("{}: chat_template is a list without an entry \"default\" (it has: {})",
                           where, names.empty() ? "none" : names));
  }
  return Err(ErrorCode::bad_model,
             fmt::format("{}: chat_template must be a string or a list", where));
}

}  // namespace

Result<ModelTemplate> LoadModelTemplate(const fs::path& model_dir) {
  ModelTemplate model;
  const fs::path config_path = model_dir / "tokenizer_config.json";
  ASSIGN_OR_RETURN(const auto config, ReadJsonObject(config_path));
  ASSIGN_OR_RETURN(const auto special, ReadJsonObject(model_dir / "special_tokens_map.json"));
  const auto token = [&](const char* key) {
    for (const auto* object : {&config, &special}) {
      if (!*object) continue;
      if (auto text = TokenText(**object, key)) return *text;
    }
    return std::string();
  };
  model.bos_token = token("bos_token");
  model.eos_token = token("eos_token");

  const fs::path jinja_path = model_dir / "chat_template.jinja";
  std::error_code error;
  std::optional<std::string> source;
  std::string name;
  if (fs::exists(jinja_path, error)) {
    ASSIGN_OR_RETURN(source, ReadFile(jinja_path, limits::kTemplateBytesMax));
    name = jinja_path.string();
  }
  if (!source) {
    const fs::path json_path = model_dir / "chat_template.json";
    ASSIGN_OR_RETURN(const auto json, ReadJsonObject(json_path));
    if (json) {
      name = json_path.string();
      ASSIGN_OR_RETURN(source, TemplateText(*json, name));
    }
  }
  if (!source && config) {
    name = config_path.string();
    ASSIGN_OR_RETURN(source, TemplateText(*config, name));
  }
  if (source) {
    ASSIGN_OR_RETURN(model.chat, ChatTemplate::Parse(*source, name));
  }
  return model;
}

}  // namespace perdure::text
