// Asking a running service's /admin, with the key that its supervisor gives to whom the control
// socket serves.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace perdure::cli {

// Of a URL: everything but letters and digits is percent-encoded.
std::string UrlEncode(std::string_view text);

struct AdminRequest {
  std::string method = "GET";
  std::string path;                                          // "/admin/…", encoded
  std::vector<std::pair<std::string, std::string>> query{};  // not encoded
  std::string body{};                                        // JSON, or empty
  int body_fd = -1;                                          // a file instead
  // Takes an answer that is no error, piece by piece; false ends it.
  std::function<bool(std::string_view)> on_data{};
};

class AdminClient {
 public:
  // io_error with the next step where no service is running.
  static Result<AdminClient> Connect(const std::filesystem::path& runtime_dir);

  // The answer. Errors are the service's own: message and field; not_found of 404, and
  // invalid_request of 400.
  Result<Json> Ask(const AdminRequest& request) const;
  // The same as it came: what is to be kept byte for byte.
  Result<std::string> AskForText(const AdminRequest& request) const;

  // Names of the models that answer, and of those that do not (yet, or any more).
  struct Models {
    std::vector<std::string> ready, others;
  };
  Result<Models> AskForModels() const;

 private:
  explicit AdminClient(std::filesystem::path runtime_dir) : runtime_dir_(std::move(runtime_dir)) {}

  std::filesystem::path runtime_dir_;
  std::string url_, key_;
};

// Tells it; the exit code.
int Fail(std::string_view message);

}  // namespace perdure::cli
