#include "tests/snapshot/failing_disk.h"

#include <dlfcn.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace perdure::snapshot {
namespace {

bool is_on = false;
size_t calls_so_far = 0, fails_from = 0;
int fails_with = 0;

bool IsToFail() { return is_on && calls_so_far++ >= fails_from; }

template <class Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

FailingDisk::FailingDisk(size_t from, int error) {
  is_on = true;
  calls_so_far = 0;
  fails_from = from;
  fails_with = error;
}
FailingDisk::~FailingDisk() { is_on = false; }
size_t FailingDisk::calls() const { return calls_so_far; }

}  // namespace perdure::snapshot

// The program's own functions go before the library's, for liblmdb too.
extern "C" {

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  using namespace perdure::snapshot;
  static auto* const real = Real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  if (!IsToFail()) return real(fd, data, bytes, offset);
  if (fails_with == 0) return real(fd, data, bytes / 2, offset);
  errno = fails_with;
  return -1;
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  using namespace perdure::snapshot;
  static auto* const real = Real<ssize_t(int, const struct iovec*, int)>("writev");
  if (!IsToFail()) return real(fd, parts, count);
  if (fails_with == 0) return real(fd, parts, count / 2);
  errno = fails_with;
  return -1;
}

int fdatasync(int fd) {
  using namespace perdure::snapshot;
  static auto* const real = Real<int(int)>("fdatasync");
  if (!IsToFail() || fails_with == 0) return real(fd);
  errno = fails_with;
  return -1;
}

}  // extern "C"
