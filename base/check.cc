#include "base/check.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace perdure {
namespace {
std::atomic<PanicSink> panic_sink{nullptr};
}

void SetPanicSink(PanicSink sink) { panic_sink.store(sink); }

void Panic(const char* file, int line, const char* condition, std::string_view detail) {
  char text[1024];
  int n = std::snprintf(text, sizeof text, "%s:%d: check failed: %s%s%.*s\n", file, line, condition,
                        detail.empty() ? "" : ": ", static_cast<int>(detail.size()), detail.data());
  if (n < 0) n = 0;
  if (n >= static_cast<int>(sizeof text)) n = sizeof text - 1;
  if (PanicSink sink = panic_sink.exchange(nullptr)) sink({text, static_cast<size_t>(n)});
  if (write(STDERR_FILENO, text, static_cast<size_t>(n)) < 0) {
    // Nothing is left to tell it to.
  }
  std::abort();
}

}  // namespace perdure
