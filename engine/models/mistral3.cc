// Mistral Small 3.1 and its kin: a Mistral with a vision tower, of which the text model alone is
// read. Source: modeling_mistral3.py of Hugging Face transformers.

#include <fmt/format.h>

#include "engine/models/registry.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeMistral3(const ModelConfig& config) {
  if (config.text_model_type != "mistral")
    return Err(
        ErrorCode::unsupported,
        fmt::format("config.json: text_config.model_type is \"{}\"; of mistral3, text models "
                    "of the type mistral are supported",
                    config.text_model_type));
  ASSIGN_OR_RETURN(DecoderSpec spec, DescribeMistral(config));
  // The second form is what transformers has called the tensors since version 4.52.
  spec.names = {{"language_model.model", "language_model.lm_head"},
                {"model.language_model", "lm_head"}};
  spec.notes = {"its vision tower is not used: it reads and writes text alone"};
  return spec;
}

}  // namespace perdure::engine
