// A file that a command makes, "-" for stdout: it stands under its name once it is whole, for its
// owner alone (0600). Not thread-safe.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::cli {

class OutputFile {
 public:
  // Refuses what is there already, unless `replace`, and what is no regular file.
  static Result<OutputFile> Create(const std::filesystem::path& path, bool replace);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  // Nothing is left of what was not finished.
  ~OutputFile();

  Status Write(std::string_view bytes);
  Status Finish();

 private:
  OutputFile() = default;

  std::filesystem::path path_, temporary_;  // empty: stdout, or finished
  bool replace_ = false;
  UniqueFd fd_;
};

}  // namespace perdure::cli
