// How the demonstration's scenes speak to the person who watches.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "cli/demo/chat_stream.h"
#include "cli/demo/demo_service.h"

namespace perdure::cli {

void Print(std::string_view text);  // at once
void Headline(std::string_view text);
// Stands out on a terminal.
std::string Marked(std::string_view text);

// Prints the last message of `body`, then asks; `on_piece` prints the answer.
ChatAnswer Ask(const DemoService& service, const Json& body,
               const std::function<void(std::string_view piece)>& on_piece);

// No answer came: says so on standard error; kExitSystem.
int Failed(std::string_view problem);
// The service did not do what it was to show: says so on standard error; kExitBug.
int Disproved(std::string_view sentence);

}  // namespace perdure::cli
