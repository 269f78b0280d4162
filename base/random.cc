#include "base/random.h"

#include <sys/random.h>

#include <cerrno>

#include "base/check.h"

namespace perdure {

uint64_t RandomU64() {
  uint64_t value = 0;
  ssize_t n = 0;
  do {
    n = getrandom(&value, sizeof value, 0);
  } while (n < 0 && errno == EINTR);
  CHECK(n == sizeof value);
  return value;
}

std::string RandomId(const char* prefix) {
  std::string id = prefix;
  for (int word = 0; word < 2; ++word) {
    uint64_t bits = RandomU64();
    for (int i = 0; i < 12; ++i, bits /= 36)
      id += "0123456789abcdefghijklmnopqrstuvwxyz"[bits % 36];
  }
  return id;
}

}  // namespace perdure
