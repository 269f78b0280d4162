#include "cli/demo/demo.h"

#include <fmt/format.h>

#include "cli/demo/demo_service.h"
#include "cli/demo/interrupt.h"
#include "cli/demo/scenes.h"
#include "cli/demo/stage.h"
#include "cli/ps.h"
#include "protocol/heritage.h"

namespace perdure::cli {

int RunDemo(const Config& config, const ConfigFlags& flags, const DemoOptions& options) {
  CatchInterrupts();
  DemoService service(config);
  if (const int code = service.Start(flags); code != protocol::kExitOk) return code;
  int code = ShowKilledStream(service, options.prompt);
  if (code == protocol::kExitOk) code = ShowSwap(service);
  if (code == protocol::kExitOk) {
    fmt::print("\n$ perdure ps\n");
    RunPs(config.runtime_dir, false);
    Print("");
  }
  if (code != protocol::kExitOk || options.once) {
    service.Stop();
    return code;
  }
  Print(fmt::format(
      "\nThe service goes on at {0}; any OpenAI client can use {0}/v1. Ctrl-C ends it.\n"
      "$ curl -N {0}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}], \"stream\": "
      "true}}'\n",
      service.url()));
  return service.Wait();
}

}  // namespace perdure::cli
