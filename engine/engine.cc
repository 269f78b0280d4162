#include "engine/engine.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "engine/config.h"
#include "engine/models/decoder.h"
#include "engine/models/registry.h"
#include "engine/weights/checkpoint.h"

namespace perdure::engine {

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
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(model_dir));
  return Decoder::Load(std::move(*spec), checkpoint, options);
}

}  // namespace perdure::engine
