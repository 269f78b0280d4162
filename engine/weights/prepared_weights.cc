#include "engine/weights/prepared_weights.h"

#include <fmt/format.h>
#include <sched.h>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/memory.h"
#include "engine/weights/pack.h"

namespace perdure::engine {

Result<uint64_t> WeightsFingerprint(const Checkpoint& checkpoint, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const std::string config_json,
                   ReadFile(checkpoint.dir() / "config.json", limits::kModelJsonBytesMax));
  std::string all = fmt::format("panels {:016x}\n", PanelsFingerprint());
  if (config.quantize) all += NameOf(*config.quantize) + "\n";
  for (const auto& path : checkpoint.Paths())
    all += fmt::format("{:016x}\n", FileFingerprint(path));
  all += config_json;
  return Hash64(all);
}

std::string WeightsName(const Checkpoint& checkpoint, const ModelConfig& config) {
  return PreparedName(checkpoint.dir(), config.quantize
                                            ? fmt::format("q{}.weights", config.quantize->bits)
                                            : std::string("weights"));
}

WeightsInUse::~WeightsInUse() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

Status WeightsInUse::Populate(const std::function<void(const LoadProgress&)>& on_progress) const {
  if (file_.bytes() > ReadMemoryState().available) return {};
  LoadProgress progress{.bytes_done = 0, .bytes_total = file_.bytes()};
  return file_.Populate([&](uint64_t bytes) {
    progress.bytes_done += bytes;
    if (on_progress) on_progress(progress);
  });
}

void WeightsInUse::StartCheck() {
  if (!thread_.joinable()) thread_ = std::thread([this] { Check(); });
}

void WeightsInUse::Check() {
  // It runs when nobody else wants the processor.
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
  const Status status = file_.Verify(stop_);
  if (status) return;
  file_.Remove();
  const std::string message =
      status.error().message +
      ": answers given since the start may be wrong; the file was removed and is made again at the "
      "next start";
  CHECK_MSG(on_damage_ != nullptr, message);
  on_damage_(message);
}

}  // namespace perdure::engine
