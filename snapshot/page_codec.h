// How the numbers of a page are compressed in the file. For one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/snapshot_settings.h"

namespace perdure::snapshot {

class PageCodec {
 public:
  PageCodec();
  ~PageCodec();
  PageCodec(const PageCodec&) = delete;
  PageCodec& operator=(const PageCodec&) = delete;

  // False where that makes it no smaller.
  bool Compress(std::span<const std::byte> data, std::string* to);
  // To all of `data`. False where the bytes are none that Compress has made, or of another length;
  // nothing beyond `data` is written then, nor is any more memory taken.
  bool Decompress(std::string_view from, std::span<std::byte> data);

 private:
  struct Contexts;
  const std::unique_ptr<Contexts> contexts_;
};

}  // namespace perdure::snapshot
