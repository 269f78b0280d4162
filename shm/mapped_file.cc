#include "shm/mapped_file.h"

#include <fmt/format.h>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>

namespace perdure::shm {
namespace {

// Boost's idea of something that can be mapped, for a descriptor that somebody else owns.
class MappableFd {
 public:
  explicit MappableFd(int fd) : handle_{fd, false} {}
  boost::interprocess::mapping_handle_t get_mapping_handle() const { return handle_; }
  boost::interprocess::mode_t get_mode() const { return boost::interprocess::read_write; }

 private:
  boost::interprocess::mapping_handle_t handle_;
};

}  // namespace

struct MappedFile::Region {
  boost::interprocess::mapped_region mapping;
};

MappedFile::MappedFile() = default;
MappedFile::MappedFile(MappedFile&&) noexcept = default;
MappedFile& MappedFile::operator=(MappedFile&&) noexcept = default;
MappedFile::~MappedFile() = default;

Result<MappedFile> MappedFile::Map(int fd, size_t bytes) {
  MappedFile file;
  file.region_ = std::make_unique<Region>();
  try {
    file.region_->mapping = boost::interprocess::mapped_region(
        MappableFd(fd), boost::interprocess::read_write, 0, bytes);
  } catch (const boost::interprocess::interprocess_exception& e) {
    return Err(ErrorCode::io_error,
               fmt::format("cannot map {} bytes of shared memory: {}", bytes, e.what()));
  }
  return file;
}

std::byte* MappedFile::data() const {
  return static_cast<std::byte*>(region_->mapping.get_address());
}

}  // namespace perdure::shm
