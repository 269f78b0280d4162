// Finds a model's tokenizer in its folder.
#include <fmt/format.h>

#include <system_error>

#include "base/file.h"
#include "base/limits.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  struct Kind {
    const char* file;
    Result<std::unique_ptr<Tokenizer>> (*parse)(std::string_view bytes, std::string_view name);
  };
  static constexpr Kind kKinds[] = {{"tokenizer.json", &Tokenizer::Parse},
                                    {"tekken.json", &ParseTekken},
                                    {"tokenizer.model", &ParseSentencePiece}};
  for (const Kind& kind : kKinds) {
    const std::filesystem::path path = model_dir / kind.file;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, limits::kTokenizerJsonBytesMax));
    return kind.parse(bytes, path.string());
  }
  return Err(ErrorCode::io_error,
             fmt::format("{} does not exist, nor do tekken.json and tokenizer.model beside it: "
                         "download the tokenizer too, or make a tokenizer.json of its other files "
                         "with transformers (AutoTokenizer.from_pretrained, save_pretrained)",
                         (model_dir / "tokenizer.json").string()));
}

}  // namespace perdure::text
