// model.safetensors.index.json, beside two shards that are in order.

#include "engine/weights/checkpoint.h"
#include "fuzz_target.h"

namespace perdure::engine {
namespace {

std::string Shard(const std::string& tensor) {
  const std::string header =
      "{\"" + tensor + R"(":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + "abc";
}

}  // namespace

FUZZ_TARGET(checkpoint_index) {
  static fuzz::Folder folder;
  static const bool once = [] {
    folder.Write("1.safetensors", Shard("a"));
    folder.Write("2.safetensors", Shard("b"));
    return true;
  }();
  CHECK(once);
  folder.Write("model.safetensors.index.json", input);
  const auto checkpoint = Checkpoint::Open(folder.path());
  if (!checkpoint) return fuzz::CheckError(checkpoint.error());
  for (const auto& [name, tensor] : checkpoint->tensors()) {
    CHECK(tensor->name == name && (name == "a" || name == "b"));
    CHECK(tensor->file->path().parent_path() == folder.path());
  }
}

}  // namespace perdure::engine
