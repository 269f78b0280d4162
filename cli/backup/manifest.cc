#include "cli/backup/manifest.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/hash.h"
#include "base/limits.h"
#include "base/percent_encode.h"
#include "base/version.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVersionKey = "perdure_backup";
constexpr const char* kChecksumKey = "checksum";
constexpr std::string_view kKinds[] = {"turns", "kv", "saved"};  // BackupKind
constexpr std::string_view kHashName = "xxh3:";

std::string HashText(uint64_t hash) { return fmt::format("{}{:016x}", kHashName, hash); }

std::optional<uint64_t> ParseHash(const std::string& text) {
  if (!text.starts_with(kHashName) || text.size() != kHashName.size() + 16) return std::nullopt;
  uint64_t hash = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + kHashName.size(), end, hash, 16);
  if (error != std::errc() || rest != end) return std::nullopt;
  return hash;
}

std::optional<std::string> Text(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

std::optional<uint64_t> Number(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return std::nullopt;
  return it->get<uint64_t>();
}

// Below the folder of what people have saved, and nowhere else.
bool IsSavedPath(const std::string& path) {
  const fs::path parsed(path);
  if (parsed.is_absolute() || parsed.lexically_normal().string() != path) return false;
  auto part = parsed.begin();
  if (part == parsed.end() || *part != "saved" || ++part == parsed.end()) return false;
  for (; part != parsed.end(); ++part)
    if (*part == ".." || *part == "." || part->empty()) return false;
  return true;
}

std::optional<BackupFile> ParseFile(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  BackupFile file;
  const auto path = Text(json, "path"), kind = Text(json, "kind"),
             checksum = Text(json, "checksum");
  const auto bytes = Number(json, "bytes");
  const auto hash = checksum ? ParseHash(*checksum) : std::nullopt;
  if (!path || !kind || !bytes || !hash) return std::nullopt;
  file.path = *path;
  file.bytes = *bytes;
  file.checksum = *hash;
  if (*kind == kKinds[2]) {
    if (!IsSavedPath(file.path)) return std::nullopt;
    return file;
  }
  if (*kind != kKinds[0] && *kind != kKinds[1]) return std::nullopt;
  file.kind = *kind == kKinds[0] ? BackupKind::kTurns : BackupKind::kKv;
  file.model = Text(json, "model").value_or("");
  file.conversations = Number(json, "conversations").value_or(0);
  file.turns = Number(json, "turns").value_or(0);
  file.pages = Number(json, "pages").value_or(0);
  if (file.model.empty() || file.model.size() > limits::kModelNameBytesMax || file.model == "." ||
      file.model == ".." || file.path != PathOf(file.kind, file.model))
    return std::nullopt;
  return file;
}

}  // namespace

fs::path PathOf(BackupKind kind, std::string_view model) {
  return fs::path("conversations") / PercentEncode(model, ".") /
         (kind == BackupKind::kTurns ? "turns.mdb" : "kv.mdb");
}

Json ManifestJson(const Manifest& manifest) {
  Json files = Json::array();
  for (const BackupFile& file : manifest.files) {
    Json json = {{"path", file.path}, {"kind", kKinds[static_cast<size_t>(file.kind)]}};
    if (file.kind != BackupKind::kSaved) json["model"] = file.model;
    json["bytes"] = file.bytes;
    json["checksum"] = HashText(file.checksum);
    if (file.kind == BackupKind::kTurns) {
      json["conversations"] = file.conversations;
      json["turns"] = file.turns;
    }
    if (file.kind == BackupKind::kKv) json["pages"] = file.pages;
    files.push_back(std::move(json));
  }
  return Json{{kVersionKey, kManifestVersion},
              {"program", manifest.program},
              {"created_unix_ms", manifest.created_unix_ms},
              {"files", std::move(files)}};
}

std::string ManifestText(const Manifest& manifest) {
  Json json = ManifestJson(manifest);
  json[kChecksumKey] = HashText(Hash64(DumpJson(json)));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Manifest> ParseManifest(std::string_view text, std::string_view what) {
  const auto damaged = [&](std::string_view why) {
    return Err(ErrorCode::io_error,
               fmt::format("{} is damaged: {}; take another backup", what, why));
  };
  auto parsed = ParseJson(text, what, ErrorCode::io_error);
  if (!parsed) return damaged(parsed.error().message);
  Json& json = *parsed;
  const auto version = json.is_object() ? Number(json, kVersionKey) : std::nullopt;
  if (!version)
    return Err(ErrorCode::io_error, fmt::format("{} is not of a backup of Perdure's", what));
  // What else it says is that version's business.
  if (*version > static_cast<uint64_t>(kManifestVersion))
    return Err(ErrorCode::unsupported,
               fmt::format("{} was made by a newer version of Perdure (format {}, this one reads "
                           "up to {}): restore it with version {} or later",
                           what, *version, kManifestVersion,
                           Text(json, "program").value_or("of its own")));
  if (!text.ends_with('\n')) return damaged("it is cut short");
  const auto checksum = Text(json, kChecksumKey);
  json.erase(kChecksumKey);
  if (!checksum || *checksum != HashText(Hash64(DumpJson(json))))
    return damaged("its checksum is another one");
  Manifest manifest;
  const auto program = Text(json, "program");
  const auto created = Number(json, "created_unix_ms");
  const auto files = json.find("files");
  if (!program || !created || files == json.end() || !files->is_array() ||
      files->size() > limits::kBackupFilesMax)
    return damaged("it lacks what every backup has");
  manifest.program = *program;
  manifest.created_unix_ms = static_cast<int64_t>(*created);
  std::set<std::string> paths;
  for (const Json& each : *files) {
    auto file = ParseFile(each);
    if (!file || !paths.insert(file->path).second)
      return damaged(
          fmt::format("file {} of its list is none of a backup", manifest.files.size() + 1));
    manifest.files.push_back(std::move(*file));
  }
  return manifest;
}

}  // namespace perdure::cli
