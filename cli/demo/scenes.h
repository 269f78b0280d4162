// What the demonstration shows. Nothing is canned: each scene asks the service, does to it what it
// says, and compares what came.
//
// Each returns kExitOk; kExitBug with a sentence where the service did not do what it is to show;
// kExitSystem where no answer came.
#pragma once

#include <string>

#include "cli/demo/demo_service.h"

namespace perdure::cli {

// The same answer twice; in the middle of the second the model's worker is killed.
int ShowKilledStream(const DemoService& service, const std::string& prompt);

// A conversation in which the model's worker is replaced before the last question.
int ShowSwap(const DemoService& service);

}  // namespace perdure::cli
