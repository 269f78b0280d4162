// Loading a layer of experts, whichever way they lie in the checkpoint.

#include <fmt/format.h>

#include "engine/models/moe.h"
#include "engine/weights/weight_reader.h"

namespace perdure::engine {
namespace {

enum class Lie { kStacked, kFused, kApart };

Lie FindLie(const WeightReader& reader, const std::string& mlp) {
  if (reader.Has(mlp + ".switch_mlp.gate_proj.weight")) return Lie::kStacked;
  if (reader.Has(mlp + ".experts.gate_up_proj")) return Lie::kFused;
  return Lie::kApart;
}

// Where the experts' gate_proj, up_proj or down_proj lie.
Result<std::vector<MatrixSource>> FindExperts(const WeightReader& reader, const std::string& mlp,
                                              Lie lie, const std::string& projection,
                                              const ExpertsConfig& config) {
  std::vector<MatrixSource> sources;
  if (lie == Lie::kStacked) {
    const std::string module = fmt::format("{}.switch_mlp.{}", mlp, projection);
    sources.push_back({.module = module, .weight = module + ".weight", .parts = config.count});
  } else if (lie == Lie::kFused) {
    const bool down = projection == "down_proj";
    const std::string module = mlp + (down ? ".experts.down_proj" : ".experts.gate_up_proj");
    sources.push_back({.module = module,
                       .weight = module,
                       .parts = config.count,
                       .rows = down ? 0 : 2 * config.feed_forward,
                       .first_row = projection == "up_proj" ? config.feed_forward : 0});
  } else {
    const auto module = [&](int expert) {
      return fmt::format("{}.experts.{}.{}", mlp, expert, projection);
    };
    const std::string next = module(config.count) + ".weight";
    if (reader.Has(next))
      return Err(
          ErrorCode::bad_model,
          fmt::format("the checkpoint has {}, but config.json says that there are {} experts "
                      "(num_experts), the last of which is {}",
                      next, config.count, config.count - 1));
    for (int expert = 0; expert < config.count; ++expert)
      sources.push_back({.module = module(expert), .weight = module(expert) + ".weight"});
  }
  for (const MatrixSource& source : sources) RETURN_IF_ERROR(reader.RefuseBias(source.module));
  return sources;
}

}  // namespace

Result<MoeLayer> LoadMoeLayer(WeightReader& reader, const std::string& mlp, int hidden,
                              const ExpertsConfig& config) {
  MoeLayer layer;
  RETURN_IF_ERROR(reader.RefuseBias(mlp + ".gate"));
  ASSIGN_OR_RETURN(layer.router, reader.Matrix(mlp + ".gate", config.count, hidden));
  const Lie lie = FindLie(reader, mlp);
  const auto read = [&](PackedMatrix* matrix, const std::string& projection, int outputs,
                        int inputs) -> Status {
    ASSIGN_OR_RETURN(const auto sources, FindExperts(reader, mlp, lie, projection, config));
    ASSIGN_OR_RETURN(*matrix, reader.Matrices(sources, outputs, inputs));
    return {};
  };
  RETURN_IF_ERROR(read(&layer.gate, "gate_proj", config.feed_forward, hidden));
  RETURN_IF_ERROR(read(&layer.up, "up_proj", config.feed_forward, hidden));
  RETURN_IF_ERROR(read(&layer.down, "down_proj", hidden, config.feed_forward));
  return layer;
}

}  // namespace perdure::engine
