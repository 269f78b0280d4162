// Finds a model's tokenizer in its folder, or its prepared form.
#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/prepared_sections.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {
namespace {

// Goes up when what is prepared, or how a file is read, changes.
constexpr int kFormVersion = 1;
constexpr std::string_view kRest = "rest";  // the section with the file, less its big lists

struct Kind {
  const char* file;
  std::function<Result<std::unique_ptr<Tokenizer>>(std::string_view bytes, std::string_view name,
                                                   std::shared_ptr<const PreparedFile> prepared)>
      parse;
  // Takes what a prepared file holds in another form out of the document; none: there is no such
  // form, as the file is no JSON.
  void (*strip)(Json* document);
};

void StripTokenizerJson(Json* document) {
  (*document)["model"].erase("vocab");
  (*document)["model"].erase("merges");
}
void StripTekken(Json* document) { document->erase("vocab"); }

const Kind kKinds[] = {
    {"tokenizer.json", &ParseTokenizerJson, &StripTokenizerJson},
    {"tekken.json", &ParseTekken, &StripTekken},
    {"tokenizer.model",
     [](std::string_view bytes, std::string_view name, const auto&) {
       return ParseSentencePiece(bytes, name);
     },
     nullptr},
};

Result<std::unique_ptr<Tokenizer>> ParseFile(const Kind& kind, const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, limits::kTokenizerJsonBytesMax));
  return kind.parse(bytes, path.string(), nullptr);
}

// Vocabularies are searched by std::hash, which another standard library may compute otherwise.
uint64_t Fingerprint(const std::filesystem::path& path) {
  return Hash64(fmt::format("{} {} {:016x} {:016x}", PERDURE_VERSION, kFormVersion,
                            std::hash<std::string_view>()("Perdure"), FileFingerprint(path)));
}

Status Write(const Kind& kind, const std::filesystem::path& path, const Tokenizer& tokenizer,
             PreparedWriter& writer) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, limits::kTokenizerJsonBytesMax));
  ASSIGN_OR_RETURN(Json document, ParseJson(bytes, path.string(), ErrorCode::bad_model));
  kind.strip(&document);
  const std::string rest = DumpJson(document);
  RETURN_IF_ERROR(AddSection<char>(writer, kRest, std::span(rest)));
  return tokenizer.Prepare(writer);
}

// io_error: of the prepared file, or of the tokenizer's own, which parsing it tells, too.
Result<std::unique_ptr<Tokenizer>> LoadPrepared(const Kind& kind, const std::filesystem::path& path,
                                                const PreparedFolder& folder, uint64_t bytes) {
  std::unique_ptr<Tokenizer> made;
  const auto make = [&](PreparedWriter& writer) -> Status {
    ASSIGN_OR_RETURN(made, ParseFile(kind, path));
    return Write(kind, path, *made, writer);
  };
  auto opened = OpenOrPrepare(folder, PreparedName(path.parent_path(), "tokenizer"),
                              Fingerprint(path), bytes, make, [] {});
  if (made != nullptr) {
    if (!opened) LogWarning("the tokenizer has no prepared form: {}", opened.error().message);
    return made;
  }
  if (!opened) return Err(std::move(opened).error());
  const auto prepared = std::make_shared<const PreparedFile>(std::move(*opened));
  // It is small, and damage would lead astray what follows indexes.
  const std::atomic<bool> never{false};
  if (auto status = prepared->Verify(never); !status) {
    prepared->Remove();
    return Err(std::move(status).error());
  }
  ASSIGN_OR_RETURN(const auto rest, ReadSection<char>(*prepared, kRest));
  return kind.parse({rest.data(), rest.size()}, path.string(), prepared);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir,
                                                   const PreparedFolder& prepared) {
  for (const Kind& kind : kKinds) {
    const std::filesystem::path path = model_dir / kind.file;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    const uintmax_t bytes = std::filesystem::file_size(path, error);
    if (!error && !prepared.dir.empty() && kind.strip != nullptr &&
        bytes >= prepared.tokenizer_bytes_min) {
      auto tokenizer = LoadPrepared(kind, path, prepared, bytes);
      if (tokenizer || tokenizer.error().code != ErrorCode::io_error) return tokenizer;
      LogWarning("the tokenizer is parsed, as no prepared form can be used: {}",
                 tokenizer.error().message);
    }
    return ParseFile(kind, path);
  }
  return Err(ErrorCode::io_error,
             fmt::format("{} does not exist, nor do tekken.json and tokenizer.model beside it: "
                         "download the tokenizer too, or make a tokenizer.json of its other files "
                         "with transformers (AutoTokenizer.from_pretrained, save_pretrained)",
                         (model_dir / "tokenizer.json").string()));
}

}  // namespace perdure::text
