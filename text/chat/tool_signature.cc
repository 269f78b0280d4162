#include "text/chat/tool_signature.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace perdure::text {
namespace {

constexpr std::pair<std::string_view, JsonTypes> kTypes[] = {
    {"string", kJsonString},   {"integer", kJsonInteger}, {"number", kJsonNumber},
    {"boolean", kJsonBoolean}, {"object", kJsonObject},   {"array", kJsonArray},
    {"null", kJsonNull},
};

JsonTypes TypeNamed(const Json& name) {
  if (!name.is_string()) return 0;
  for (const auto& [text, type] : kTypes)
    if (name.get_ref<const std::string&>() == text) return type;
  return 0;
}

JsonTypes TypesOf(const Json& schema, int depth) {
  // Schemas of schemas: those that clients write have two levels.
  if (!schema.is_object() || depth > 4) return 0;
  JsonTypes types = 0;
  if (const auto type = schema.find("type"); type != schema.end()) {
    types = TypeNamed(*type);
    if (type->is_array())
      for (const Json& name : *type) types |= TypeNamed(name);
    return types;
  }
  for (const char* key : {"anyOf", "oneOf", "allOf"}) {
    const auto choices = schema.find(key);
    if (choices == schema.end() || !choices->is_array()) continue;
    for (const Json& choice : *choices) types |= TypesOf(choice, depth + 1);
  }
  if (types != 0) return types;
  if (schema.contains("properties")) return kJsonObject;
  return schema.contains("items") ? kJsonArray : JsonTypes{0};
}

}  // namespace

std::vector<ToolSignature> ToolSignatures(const Json& tools) {
  std::vector<ToolSignature> result;
  if (!tools.is_array()) return result;
  for (const Json& tool : tools) {
    if (!tool.is_object()) continue;
    const auto inner = tool.find("function");
    const Json& function = inner != tool.end() && inner->is_object() ? *inner : tool;
    const auto name = function.find("name");
    if (name == function.end() || !name->is_string()) continue;
    ToolSignature signature;
    signature.name = name->get<std::string>();
    const auto schema = function.find("parameters");
    if (schema != function.end() && schema->is_object()) {
      const auto properties = schema->find("properties");
      if (properties != schema->end() && properties->is_object()) {
        for (const auto& [key, property] : properties->items()) {
          if (const JsonTypes types = TypesOf(property, 0); types != 0)
            signature.parameters[key] = types;
        }
      }
    }
    if (!signature.name.empty()) result.push_back(std::move(signature));
  }
  return result;
}

const ToolSignature* FindTool(const std::vector<ToolSignature>& tools, std::string_view name) {
  const auto found = std::find_if(tools.begin(), tools.end(),
                                  [name](const ToolSignature& tool) { return tool.name == name; });
  return found == tools.end() ? nullptr : &*found;
}

bool AnyToolBegins(const std::vector<ToolSignature>& tools, std::string_view beginning) {
  return std::any_of(tools.begin(), tools.end(), [beginning](const ToolSignature& tool) {
    return tool.name.starts_with(beginning);
  });
}

}  // namespace perdure::text
