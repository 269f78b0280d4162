// The demonstration's own service: this program's `serve` as a child process.
//
// Not thread-safe.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/config.h"
#include "base/json.h"
#include "base/result.h"

namespace perdure::cli {

class DemoService {
 public:
  // `config` outlives the service and is what `flags` stand for.
  explicit DemoService(const Config& config) : config_(config) {}
  ~DemoService();  // stops it
  DemoService(const DemoService&) = delete;
  DemoService& operator=(const DemoService&) = delete;

  // Returns once requests would be answered: kExitOk. Else says why not, and returns the exit code
  // to end with; the service has then ended.
  int Start(const ConfigFlags& flags);

  const Config& config() const { return config_; }
  const std::string& url() const { return url_; }
  // The model that answers where a request names none.
  const ModelConfig& model() const;
  // Its entry in `perdure ps --json`.
  Result<Json> ModelReport() const;

  // SIGTERM, then the end; a second Ctrl-C ends it at once. Returns its exit code.
  int Stop();
  // Until it has ended by itself, or by Ctrl-C. Returns its exit code.
  int Wait();

 private:
  int AwaitReady();
  int ChildExit(bool wait);

  const Config& config_;
  pid_t pid_ = -1;
  std::string url_;
};

}  // namespace perdure::cli
