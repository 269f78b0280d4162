// Random calls in every format: what is read is what was written.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "chat_checks.h"

namespace perdure::text {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  size_t Below(size_t n) { return engine_() % n; }
  bool OneIn(size_t n) { return Below(n) == 0; }

  std::string Text() {
    static const std::vector<std::string> kParts = {
        "a", "Zürich", "\"",  "\\", "\n",        "</parameter>", "</tool_call>", "<tool_call>",
        "😀", "{",      "]}",  ";",  "[ARGS]",    "[TOOL_CALLS]", "</function>",  "<think>",
        " ", "</",     "```", "\t", "\n</param", "null",         "</think>",     "\x01"};
    std::string text;
    for (size_t n = Below(6); n > 0; --n) text += kParts[Below(kParts.size())];
    return text;
  }

  Json Value(int depth) {
    switch (Below(depth > 3 ? 5 : 7)) {
      case 0:
        return Text();
      case 1:
        return static_cast<int>(Below(2000)) - 1000;
      case 2:
        return static_cast<double>(Below(1000)) / 8;
      case 3:
        return OneIn(2);
      case 4:
        return nullptr;
      case 5: {
        Json list = Json::array();
        for (size_t n = Below(4); n > 0; --n) list.push_back(Value(depth + 1));
        return list;
      }
      default:
        return Object(depth + 1);
    }
  }

  Json Object(int depth) {
    Json object = Json::object();
    for (size_t n = Below(4); n > 0; --n) object["k" + Text()] = Value(depth + 1);
    return object;
  }

 private:
  std::mt19937 engine_;
};

// Pretty or not, escaped or not: the bytes are the model's choice.
std::string Written(Random& random, const Json& json) {
  return json.dump(random.OneIn(2) ? -1 : static_cast<int>(random.Below(3)), ' ', random.OneIn(2));
}

std::string WriteCall(Random& random, const std::string& name, const std::string& arguments,
                      const char* key) {
  const std::string first = "\"name\": " + Json(name).dump();
  const std::string second = std::string("\"") + key + "\": " + arguments;
  return random.OneIn(3) ? "{" + second + " , " + first + "}" : "{" + first + "," + second + "}";
}

std::vector<std::string> CutAtRandom(Random& random, const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t size = 1 + random.Below(12);
    parts.push_back(text.substr(at, size));
    at += size;
  }
  return parts;
}

constexpr const char* kNames[] = {"get_weather", "get_time", "write-file_2"};

TEST(ChatProperty, JsonArgumentsComeAsTheyWereWritten) {
  for (uint32_t seed = 0; seed < 6000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto format =
        std::vector{ToolFormat::kHermes, ToolFormat::kMistral, ToolFormat::kDevstral,
                    ToolFormat::kLlama3, ToolFormat::kJson}[random.Below(5)];
    ReadAnswer wanted;
    std::string text;
    if (random.OneIn(2)) {
      wanted.reasoning = "r" + std::to_string(seed) + "\nmore <tool_call> {";
      text = "<think>\n" + wanted.reasoning + "\n</think>\n\n";
    }
    const bool at_start = format == ToolFormat::kLlama3 || format == ToolFormat::kJson;
    if (!at_start && random.OneIn(2)) {
      wanted.content = "Some content, [x] < y.";
      text += wanted.content + (random.OneIn(2) ? "\n" : "");
    }
    const size_t count = 1 + random.Below(3);
    for (size_t i = 0; i < count; ++i) {
      const std::string name = kNames[random.Below(3)];
      const std::string arguments = Written(random, random.Object(0));
      wanted.calls.push_back({name, arguments});
      // A list is one markup for all of them.
      const bool last = i + 1 == count;
      const std::string call = WriteCall(random, name, arguments, "arguments");
      switch (format) {
        case ToolFormat::kHermes:
          text += "<tool_call>\n" + call + "\n</tool_call>" + (last ? "" : "\n");
          break;
        case ToolFormat::kMistral:
          text += (i == 0 ? "[TOOL_CALLS] [" : ", ") + call + (last ? "]" : "");
          break;
        case ToolFormat::kDevstral:
          text += "[TOOL_CALLS]" + name + "[ARGS]" + arguments;
          break;
        case ToolFormat::kLlama3:
          text += call + (last ? "" : "; ");
          break;
        default:
          text += (i == 0 ? "[" : ",\n") + call + (last ? "]" : "");
          break;
      }
    }
    const ReadAnswer read = Read(Settings(format, kThink), CutAtRandom(random, text));
    ASSERT_EQ(read, wanted) << text;
  }
}

TEST(ChatProperty, ParametersBecomeEqualJson) {
  for (uint32_t seed = 0; seed < 4000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    Json wanted = Json::object();
    std::string text = "<tool_call>\n<function=get_weather>\n";
    const auto add = [&](const char* key, const Json& value) {
      wanted[key] = value;
      text += std::string("<parameter=") + key + ">\n" +
              (value.is_string() ? value.get<std::string>() : Written(random, value)) +
              "\n</parameter>\n";
    };
    const auto unlike_an_end = [&random] {
      // No text can hold what ends it.
      std::string value = random.Text();
      while (value.find("</parameter>") != std::string::npos) value = random.Text();
      return value;
    };
    if (random.OneIn(2)) add("place", unlike_an_end());
    if (random.OneIn(2)) add("days", static_cast<int>(random.Below(100)));
    if (random.OneIn(2)) add("exact", random.OneIn(2));
    if (random.OneIn(2)) {
      Json object = random.Object(0);
      if (object.dump().find("</parameter>") == std::string::npos) add("where", object);
    }
    if (random.OneIn(2)) add("maybe", random.OneIn(2) ? Json() : Json("n" + unlike_an_end()));
    text += "</function>\n</tool_call>";
    const ReadAnswer read = Read(Settings(ToolFormat::kQwen3Coder), CutAtRandom(random, text));
    ASSERT_EQ(read.content, "") << text;
    ASSERT_EQ(read.calls.size(), 1u) << text;
    ASSERT_TRUE(read.calls[0].complete) << text;
    const auto json = ParseJson(read.calls[0].arguments, "arguments", ErrorCode::internal);
    ASSERT_TRUE(json) << read.calls[0].arguments;
    // "null" as a text cannot be told from null where both are allowed.
    if (wanted.contains("maybe") && wanted["maybe"] == "null") wanted["maybe"] = nullptr;
    ASSERT_EQ(*json, wanted) << text;
  }
}

}  // namespace
}  // namespace perdure::text
