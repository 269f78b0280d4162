#include "snapshot/page_codec.h"

#include <zstd.h>

#include "base/check.h"

namespace perdure::snapshot {
namespace {

// docs/decisions/0007-snapshots.md: higher ones take longer and save nothing.
constexpr int kLevel = 1;

}  // namespace

struct PageCodec::Contexts {
  ZSTD_CCtx* const in = ZSTD_createCCtx();
  ZSTD_DCtx* const out = ZSTD_createDCtx();
  ~Contexts() {
    ZSTD_freeCCtx(in);
    ZSTD_freeDCtx(out);
  }
};

PageCodec::PageCodec() : contexts_(std::make_unique<Contexts>()) {
  CHECK(contexts_->in != nullptr && contexts_->out != nullptr);
}
PageCodec::~PageCodec() = default;

bool PageCodec::Compress(std::span<const std::byte> data, std::string* to) {
  // What does not fit is not wanted.
  to->resize(data.size());
  const size_t bytes =
      ZSTD_compressCCtx(contexts_->in, to->data(), to->size(), data.data(), data.size(), kLevel);
  if (ZSTD_isError(bytes) != 0 || bytes >= data.size()) return false;
  to->resize(bytes);
  return true;
}

bool PageCodec::Decompress(std::string_view from, std::span<std::byte> data) {
  const size_t bytes =
      ZSTD_decompressDCtx(contexts_->out, data.data(), data.size(), from.data(), from.size());
  return ZSTD_isError(bytes) == 0 && bytes == data.size();
}

}  // namespace perdure::snapshot
