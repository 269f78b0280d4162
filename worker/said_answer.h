// What a choice has said so far, in the parts of which its message consists.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/messages.h"

namespace perdure::worker {

struct SaidAnswer {
  struct Call {
    std::string name;
    std::string arguments;  // as the model wrote them
  };
  std::string content{};
  std::string reasoning{};
  std::vector<Call> calls{};

  void Add(const protocol::Event& event) {
    content += event.text;
    for (const protocol::AnswerPart& part : event.parts) {
      switch (part.kind) {
        case protocol::PartKind::kContent:
          content += part.text;
          break;
        case protocol::PartKind::kReasoning:
          reasoning += part.text;
          break;
        case protocol::PartKind::kCallBegin:
          calls.push_back({part.text, {}});
          break;
        case protocol::PartKind::kCallArguments:
          if (!calls.empty()) calls.back().arguments += part.text;
          break;
      }
    }
  }
};

}  // namespace perdure::worker
