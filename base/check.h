// CHECK: for bugs. On in every build. A failed check writes its text where the parent process can
// read it (the panic sink, shared memory in a worker), logs it and aborts.
#pragma once

#include <string_view>

namespace perdure {

// Called once with the text before abort(); must be async-signal-safe. Thread-safe to set at start.
using PanicSink = void (*)(std::string_view text);
void SetPanicSink(PanicSink sink);

[[noreturn]] void Panic(const char* file, int line, const char* condition,
                        std::string_view detail = {});

#define CHECK(condition)                                \
  do {                                                  \
    if (!(condition)) [[unlikely]]                      \
      ::perdure::Panic(__FILE__, __LINE__, #condition); \
  } while (0)

// With a std::string_view-convertible explanation, evaluated only on failure.
#define CHECK_MSG(condition, detail)                            \
  do {                                                          \
    if (!(condition)) [[unlikely]]                              \
      ::perdure::Panic(__FILE__, __LINE__, #condition, detail); \
  } while (0)

}  // namespace perdure
