#include "conversation_files.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>

#include "shm/layout.h"
#include "snapshot/kv_file.h"
#include "tests/base/temp_folder.h"

namespace perdure::process_tests {

namespace fs = std::filesystem;

fs::path TurnsFile(const Service& service, const std::string& model) {
  return service.folder() / "state" / "conversations" / model / "turns.mdb";
}
fs::path KvFile(const Service& service, const std::string& model) {
  return service.folder() / "state" / "conversations" / model / "kv.mdb";
}

std::string BytesOf(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteBytes(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

std::string BytesOf(const std::vector<TokenId>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)};
}

std::vector<snapshot::StoredPage> PagesOf(const fs::path& kv_file) {
  // The service has the file to itself: this is a copy, which a write may tear.
  const TempFolder folder;
  const fs::path copy = folder.path() / "kv.mdb";
  std::error_code error;
  if (!fs::copy_file(kv_file, copy, error)) return {};
  auto opened =
      snapshot::KvFile::Open({.file = copy,
                              .model = kv_file.parent_path().filename().string(),
                              .bytes_max = std::max<uint64_t>(fs::file_size(copy), 64 << 20),
                              .sync = false});
  if (!opened || !(*opened)->problems().empty()) return {};
  return (*opened)->TakePages();
}

bool AwaitPages(const Service& service, int tokens, const std::string& model) {
  // The first ones are stored first. The last token is drawn and not computed.
  return Eventually([&] {
    return std::ranges::any_of(
        PagesOf(KvFile(service, model)), [&](const snapshot::StoredPage& page) {
          return page.position * shm::kArenaPageTokens + page.tokens.size() + 1 ==
                 static_cast<size_t>(tokens);
        });
  });
}

}  // namespace perdure::process_tests
