#include "programs/child_main.h"

#include <fmt/format.h>

#include <cstdio>

namespace perdure {

int ChildMain(int argc, char** argv, int (*run)(const protocol::Heritage&)) {
  if (argc != 2) {
    fmt::print(stderr, "{}: is started by `perdure serve`, not by hand\n", argv[0]);
    return protocol::kExitUsage;
  }
  const Result<protocol::Heritage> heritage = protocol::ReadHeritage(argv[1]);
  if (!heritage) {
    fmt::print(stderr, "{}: {}\n", argv[0], heritage.error().message);
    return protocol::kExitUsage;
  }
  protocol::DieWithParent(heritage->supervisor_pid);
  return run(*heritage);
}

}  // namespace perdure
