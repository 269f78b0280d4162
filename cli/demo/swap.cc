#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/control_client.h"
#include "cli/demo/scenes.h"
#include "cli/demo/stage.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

constexpr std::array kBefore = {"hi there", "my name is Zorbit and i live in Zurich",
                                "what is 17 + 25?", "my dog is called Rex"};
constexpr const char* kQuestion = "what's my name?";
constexpr const char* kExpected = "Zorbit";
// A model that talks more is cut short: the scene is about what was said to it.
constexpr int kTurnTokens = 48;

// Asks the next question of the conversation and appends it and its answer.
ChatAnswer Turn(const DemoService& service, const char* question, Json* messages) {
  messages->push_back(Json{{"role", "user"}, {"content", question}});
  ChatAnswer answer =
      Ask(service, Json{{"messages", *messages}, {"temperature", 0}, {"max_tokens", kTurnTokens}},
          &Print);
  messages->push_back(Json{{"role", "assistant"}, {"content", answer.text}});
  return answer;
}

}  // namespace

int ShowSwap(const DemoService& service) {
  Headline("2. A conversation outlives the process, too");
  Json messages = Json::array();
  for (const char* question : kBefore) {
    const ChatAnswer answer = Turn(service, question, &messages);
    if (!answer.problem.empty()) return Failed(answer.problem);
  }
  const Result<Json> before = service.ModelReport();
  if (!before) return Failed(before.error().message);
  const std::string& model = service.model().name;
  fmt::print("{}\n\n", Marked(fmt::format("$ perdure reload {}", model)));
  const Result<Json> reload = AskSupervisor(service.config().runtime_dir, "reload", model);
  if (!reload) return Failed(reload.error().message);
  const ChatAnswer answer = Turn(service, kQuestion, &messages);
  if (!answer.problem.empty()) return Failed(answer.problem);
  const Result<Json> after = service.ModelReport();
  if (!after) return Failed(after.error().message);

  if ((*after)["pid"] == (*before)["pid"])
    return Disproved("The question was answered by the old process: nothing was replaced.");
  if (answer.cached_tokens == 0)
    return Disproved("Nothing of the conversation came from the cache: all was computed again.");
  // Another model may say it in its own way, or not at all.
  if (service.model().source == "nano" && answer.text.find(kExpected) == std::string::npos)
    return Disproved(fmt::format("The answer does not say {}.", kExpected));
  fmt::print(
      "Process {} has taken the place of {}. Of the {} tokens of the conversation, {} came from\n"
      "shared memory; {} were computed.\n",
      TextOf(*after, "pid"), TextOf(*before, "pid"), answer.prompt_tokens, answer.cached_tokens,
      answer.prompt_tokens - answer.cached_tokens);
  return protocol::kExitOk;
}

}  // namespace perdure::cli
