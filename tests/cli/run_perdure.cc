#include "tests/cli/run_perdure.h"

#include <sys/wait.h>

#include <cstdio>

namespace perdure::cli {

Output RunPerdure(const std::filesystem::path& home, const std::string& arguments,
                  const std::string& environment) {
  const std::string at_home = "='" + home.string();
  const std::string command = "env -i HOME" + at_home + "' PERDURE_RUNTIME_DIR" + at_home +
                              "/run' PERDURE_STATE_DIR" + at_home +
                              "/state' PERDURE_CONFIG=/dev/null " + environment +
                              " '" PERDURE_BIN_DIR "/perdure' " + arguments + " 2>&1";
  Output output;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.text.append(buffer, n);
  const int status = pclose(pipe);
  output.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

}  // namespace perdure::cli
