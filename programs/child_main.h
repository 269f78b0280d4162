// What every child program's main() does: read the heritage, tie its life to the supervisor's, run.
#pragma once

#include "protocol/heritage.h"

namespace perdure {

int ChildMain(int argc, char** argv, int (*run)(const protocol::Heritage&));

}  // namespace perdure
