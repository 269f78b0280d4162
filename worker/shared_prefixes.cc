#include "worker/shared_prefixes.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "worker/chat_context.h"

namespace perdure::worker {
namespace {

Result<std::vector<TokenId>> ChatAfter(const Model& model, const std::string& system,
                                       const char* question) {
  const Json chat = {
      {"messages",
       {{{"role", "system"}, {"content", system}}, {{"role", "user"}, {"content", question}}}}};
  ASSIGN_OR_RETURN(const RenderedChat rendered,
                   RenderConversation(model.chat, DumpJson(chat), UnixSeconds()));
  return model.tokenizer->Encode(rendered.prompt.text, rendered.prompt.input);
}

Result<std::vector<TokenId>> PrefixOf(const Model& model, const std::string& file) {
  ASSIGN_OR_RETURN(std::string system, ReadFile(file, limits::kSharedPromptBytesMax));
  // The newline that editors leave is nobody's.
  if (system.ends_with('\n')) system.pop_back();
  // What they have in common does not depend on the question.
  ASSIGN_OR_RETURN(std::vector<TokenId> one, ChatAfter(model, system, "1"));
  ASSIGN_OR_RETURN(const std::vector<TokenId> other, ChatAfter(model, system, "a"));
  one.erase(std::ranges::mismatch(one, other).in1, one.end());
  return one;
}

}  // namespace

std::vector<std::vector<TokenId>> SharedPrefixes(const Model& model,
                                                 const std::vector<std::string>& files) {
  std::vector<std::vector<TokenId>> prefixes;
  for (const std::string& file : files) {
    auto prefix = PrefixOf(model, file);
    if (!prefix) {
      LogWarning("the shared prompt {} is not used: {}", file, prefix.error().message);
      continue;
    }
    const size_t pages = prefix->size() / engine::kPageTokens;
    if (pages == 0) {
      LogWarning("the shared prompt {} is too short to be shared: it has {} tokens, {} are needed",
                 file, prefix->size(), engine::kPageTokens);
      continue;
    }
    LogInfo("the first {} tokens of {} are shared by all tenants", pages * engine::kPageTokens,
            file);
    prefixes.push_back(std::move(*prefix));
  }
  return prefixes;
}

}  // namespace perdure::worker
