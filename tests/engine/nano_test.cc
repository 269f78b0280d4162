// The built-in model answers as it does in mlx-lm (goldens/make_nano.py): greedy, token for token.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "kv_memory.h"

namespace perdure::engine {
namespace {

uint64_t Fnv1a(std::string_view bytes) {
  uint64_t h = 0xCBF29CE484222325u;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}

std::vector<TokenId> Greedy(Engine& engine, const std::vector<TokenId>& prompt, size_t count) {
  const KvMemory kv(engine.info().kv, static_cast<int>(prompt.size() + count));
  std::vector<TokenId> answer, fed = prompt;
  int start = 0;
  while (answer.size() < count) {
    const SequenceStep step{.kv = kv.view(),
                            .start = start,
                            .tokens = fed,
                            .logits_from = static_cast<int>(fed.size()) - 1};
    const auto logits = engine.Step({&step, 1});
    start += static_cast<int>(fed.size());
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    answer.push_back(static_cast<TokenId>(best));
    fed = {answer.back()};
  }
  return answer;
}

TEST(NanoTest, AnswersAsInMlx) {
  const std::filesystem::path root = PERDURE_SOURCE_DIR, model = root / "models/nano";
  const auto text = ReadFile(root / "tests/engine/goldens/nano.json", size_t{1} << 20);
  ASSERT_TRUE(text.has_value()) << text.error().message;
  const auto golden = ParseJson(*text, "nano.json", ErrorCode::bad_config);
  ASSERT_TRUE(golden.has_value()) << golden.error().message;
  const auto weights = ReadFile(model / "model.safetensors", size_t{1} << 28);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  ASSERT_TRUE(golden->at("weights_bytes") == weights->size() &&
              golden->at("weights_fnv1a") == Fnv1a(*weights))
      << "models/nano has other weights than nano.json was made from: make it again with "
         "tests/engine/goldens/make_nano.py";

  auto engine = Engine::Load(model, {.threads = 2, .on_progress = {}});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  size_t tokens = 0;
  for (const Json& row : golden->at("answers")) {
    const auto answer = row.at("answer").get<std::vector<TokenId>>();
    EXPECT_EQ(Greedy(**engine, row.at("prompt").get<std::vector<TokenId>>(), answer.size()),
              answer);
    tokens += answer.size();
  }
  EXPECT_GE(golden->at("answers").size(), 16u);
  EXPECT_GE(tokens, 100u);
}

}  // namespace
}  // namespace perdure::engine
