#include "engine/engine.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "engine/config.h"
#include "engine/models/decoder.h"
#include "engine/models/registry.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/prepared_weights.h"

namespace perdure::engine {

namespace {

// io_error: of the prepared file, not of the model.
Result<std::unique_ptr<Engine>> LoadPrepared(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                             const EngineOptions& options) {
  ASSIGN_OR_RETURN(const uint64_t fingerprint, WeightsFingerprint(checkpoint, spec.config));
  LoadProgress progress;  // of waiting for another process
  const auto alive = [&] {
    if (options.on_progress) options.on_progress(progress);
  };
  const auto make = [&](PreparedWriter& writer) {
    return Decoder::Prepare(spec, checkpoint, options, writer);
  };
  ASSIGN_OR_RETURN(PreparedFile file,
                   OpenOrPrepare(options.prepared, WeightsName(checkpoint, spec.config),
                                 fingerprint, checkpoint.data_bytes(), make, alive));
  return Decoder::Map(spec, checkpoint, options, std::move(file));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Load(const std::filesystem::path& model_dir,
                                             const EngineOptions& options) {
  if (options.threads < 1 || options.threads > limits::kEngineThreadsMax)
    return Err(ErrorCode::bad_config, fmt::format("{} threads are outside of [1, {}]",
                                                  options.threads, limits::kEngineThreadsMax));
  if (!CpuHas(options.isa))
    return Err(ErrorCode::unsupported, fmt::format("this CPU does not have {}; its best is {}",
                                                   IsaName(options.isa), IsaName(BestIsa())));
  // First of all: what is of another kind has other keys.
  ASSIGN_OR_RETURN(const ModelKind kind, ReadModelKind(model_dir));
  if (auto status = CheckModelKind(kind); !status)
    return ErrWithContext(model_dir.string(), std::move(status).error());
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(model_dir));
  auto spec = DescribeModel(config);
  if (!spec) return ErrWithContext(model_dir.string(), std::move(spec).error());
  ASSIGN_OR_RETURN(spec->config.quantize, QuantizeOnLoad(config, options.quantize_bits, model_dir));
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(model_dir));
  if (!options.prepared.dir.empty() &&
      checkpoint.data_bytes() >= options.prepared.weights_bytes_min) {
    auto engine = LoadPrepared(*spec, checkpoint, options);
    if (engine || engine.error().code != ErrorCode::io_error) return engine;
    LogWarning("the weights are packed in memory, as no prepared file can be used: {}",
               engine.error().message);
  }
  return Decoder::Load(std::move(*spec), checkpoint, options);
}

}  // namespace perdure::engine
