// The entry of a fuzz target: libFuzzer's in the preset "fuzz", a row of the corpus test elsewhere.
//
//   FUZZ_TARGET(name) { … uses `input` … }   once a file, in a namespace with a name
//
// A target feeds the input to the function that the product uses and CHECKs what must hold of any
// result: whatever aborts or is found by a sanitizer is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::fuzz {

using Entry = void (*)(std::string_view input);

#ifdef PERDURE_LIBFUZZER
#define FUZZ_TARGET(name)                                                   \
  static void RunTarget(std::string_view input);                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    RunTarget(std::string_view(reinterpret_cast<const char*>(data), size)); \
    return 0;                                                               \
  }                                                                         \
  static void RunTarget(std::string_view input)
#else
std::map<std::string, Entry>& Targets();
#define FUZZ_TARGET(name)                                           \
  static void RunTarget(std::string_view input);                    \
  [[maybe_unused]] static const bool kRegistered =                  \
      ::perdure::fuzz::Targets().emplace(#name, &RunTarget).second; \
  static void RunTarget(std::string_view input)
#endif

// A folder of files whose contents the fuzzer writes, for parsers that take paths; removed at exit.
// It lies where temporary files do: below /dev/shm, if TMPDIR says so, runs are fast.
class Folder {
 public:
  Folder();
  ~Folder();
  const std::filesystem::path& path() const { return path_; }
  void Write(const std::string& name, std::string_view bytes);
  void Remove(const std::string& name);

 private:
  std::filesystem::path path_;
  std::map<std::string, UniqueFd> files_;  // kept open: opening costs more than writing
};

// The input up to the first byte 0, and what follows it.
std::pair<std::string_view, std::string_view> SplitAtZero(std::string_view input);

// An error says something.
void CheckError(const Error& error);

}  // namespace perdure::fuzz
