#include "fuzz_target.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <system_error>

namespace perdure::fuzz {

namespace fs = std::filesystem;

#ifndef PERDURE_LIBFUZZER
std::map<std::string, Entry>& Targets() {
  static std::map<std::string, Entry> targets;
  return targets;
}
#endif

Folder::Folder() {
  std::string pattern = (fs::temp_directory_path() / "perdure-fuzz-XXXXXX").string();
  CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void Folder::Write(const std::string& name, std::string_view bytes) {
  UniqueFd& fd = files_[name];
  if (!fd) fd.reset(open((path_ / name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  CHECK(fd && ftruncate(fd.get(), 0) == 0);
  CHECK(pwrite(fd.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
}

void Folder::Remove(const std::string& name) {
  if (files_.erase(name) > 0) fs::remove(path_ / name);
}

std::pair<std::string_view, std::string_view> SplitAtZero(std::string_view input) {
  const size_t zero = input.find('\0');
  if (zero == std::string_view::npos) return {input, {}};
  return {input.substr(0, zero), input.substr(zero + 1)};
}

void CheckError(const Error& error) {
  CHECK(!error.message.empty());
  CHECK_MSG(error.code != ErrorCode::internal, error.message);
}

}  // namespace perdure::fuzz
