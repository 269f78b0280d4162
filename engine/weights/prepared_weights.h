// A model's packed matrices in a prepared file (docs/prepared_weights.md): written at its first
// load, mapped by every later one.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "base/prepared_file.h"
#include "base/prepared_folder.h"
#include "base/result.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/weights/checkpoint.h"

namespace perdure::engine {

// What a load does with packed weights: `from` a prepared file it reads them; `to` one it writes
// them, and the model cannot compute afterwards; with neither they are packed in memory.
struct WeightsPlace {
  const PreparedFile* from = nullptr;
  PreparedWriter* to = nullptr;
};

// Of all that the packed weights are made from: the files, config.json, how they are quantized
// while loading, and how this build packs.
Result<uint64_t> WeightsFingerprint(const Checkpoint& checkpoint, const ModelConfig& config);
// The file's name; a model that is quantized on load has one for each way.
std::string WeightsName(const Checkpoint& checkpoint, const ModelConfig& config);

// A prepared file in use. Its checksums are compared once, by an idle thread, after the first step:
// at the start that would take longer than all else.
class WeightsInUse {
 public:
  // on_damage: called on that thread, once, after the file was removed.
  WeightsInUse(PreparedFile file, std::function<void(const std::string&)> on_damage)
      : file_(std::move(file)), on_damage_(std::move(on_damage)) {}
  ~WeightsInUse();
  WeightsInUse(const WeightsInUse&) = delete;
  WeightsInUse& operator=(const WeightsInUse&) = delete;

  const PreparedFile& file() const { return file_; }
  // Brings all of it to memory, if there is room: from then on nothing waits for the disk.
  // io_error where the disk does not give it.
  Status Populate(const std::function<void(const LoadProgress&)>& on_progress) const;
  // Does nothing from the second call on.
  void StartCheck();

 private:
  void Check();

  const PreparedFile file_;
  const std::function<void(const std::string&)> on_damage_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace perdure::engine
