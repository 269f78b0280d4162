// Another name of a model, with defaults of its own for requests that do not say. As it stands in
// the configuration and goes to the frontend.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

namespace perdure {

struct ModelAlias {
  std::string name;
  std::string model;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k, max_tokens;
  std::string system_prompt;         // of chats without one; empty: none
  std::string chat_template_kwargs;  // a JSON object; empty: none
  auto Fields() {
    return std::tie(name, model, temperature, top_p, min_p, repetition_penalty, top_k, max_tokens,
                    system_prompt, chat_template_kwargs);
  }
};

}  // namespace perdure
