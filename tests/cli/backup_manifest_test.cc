// backup.json.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "cli/backup/manifest.h"

namespace perdure::cli {
namespace {

using testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.program = "1.2.3";
  manifest.created_unix_ms = 1'700'000'000'000;
  manifest.files = {{.path = "conversations/org%2Fname/turns.mdb",
                     .kind = BackupKind::kTurns,
                     .model = "org/name",
                     .bytes = 4096,
                     .checksum = 0x0123456789abcdef,
                     .conversations = 3,
                     .turns = 17},
                    {.path = "conversations/org%2Fname/kv.mdb",
                     .kind = BackupKind::kKv,
                     .model = "org/name",
                     .bytes = 8192,
                     .checksum = 1,
                     .pages = 5},
                    {.path = "saved/nano/a b.conversation", .bytes = 5, .checksum = 2}};
  return manifest;
}

// With a right checksum, whatever it says.
std::string Sealed(Json json) {
  json.erase("checksum");
  json["checksum"] = fmt::format("xxh3:{:016x}", Hash64(DumpJson(json)));
  return json.dump(1) + "\n";
}

Error ErrorOf(const std::string& text) {
  const auto parsed = ParseManifest(text, "B/backup.json");
  EXPECT_FALSE(parsed.has_value()) << text;
  return parsed ? Error{} : parsed.error();
}

TEST(BackupManifest, ComesBackAsItWas) {
  const auto parsed = ParseManifest(ManifestText(Example()), "backup.json");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(ManifestText(*parsed), ManifestText(Example()));
  EXPECT_EQ(parsed->files[0].turns, 17u);
  EXPECT_EQ(parsed->files[1].pages, 5u);
  EXPECT_EQ(parsed->files[2].kind, BackupKind::kSaved);
}

TEST(BackupManifest, AnyFlippedBitIsNoticed) {
  const std::string text = ManifestText(Example());
  for (size_t i = 0; i < text.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      ASSERT_FALSE(ParseManifest(damaged, "backup.json").has_value()) << i << " " << bit;
    }
  for (size_t size = 0; size < text.size(); ++size)
    ASSERT_FALSE(ParseManifest(text.substr(0, size), "backup.json").has_value()) << size;
}

TEST(BackupManifest, OfANewerVersionIsRefusedAsThat) {
  Json json = ManifestJson(Example());
  json["perdure_backup"] = 2;
  json["files"] = "somewhere else";
  const Error error = ErrorOf(json.dump());
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_EQ(error.message,
            "B/backup.json was made by a newer version of Perdure (format 2, this one reads up to "
            "1): restore it with version 1.2.3 or later");
}

TEST(BackupManifest, WhatNoBackupHasIsRefused) {
  const auto with = [](const std::function<void(Json&)>& change) {
    Json json = ManifestJson(Example());
    change(json);
    return ErrorOf(Sealed(json)).message;
  };
  EXPECT_THAT(ErrorOf("[]").message, HasSubstr("is not of a backup of Perdure's"));
  EXPECT_THAT(ErrorOf("{\"models\": 1}").message, HasSubstr("is not of a backup of Perdure's"));
  EXPECT_THAT(with([](Json& j) { j.erase("files"); }), HasSubstr("it lacks what every backup has"));
  EXPECT_THAT(with([](Json& j) { j["program"] = 1; }), HasSubstr("it lacks what every backup has"));
  const std::pair<const char*, Json> wrong[] = {
      {"path", "saved/../../etc/passwd"},
      {"path", "/etc/passwd"},
      {"path", "saved"},
      {"path", "saved/"},
      {"path", "saved//a"},
      {"path", "saved/./a"},
      {"path", "other/a"},
      {"path", "conversations/nano/turns.mdb"},
      {"path", ""},
      {"path", 1},
      {"kind", "weights"},
      {"bytes", -1},
      {"bytes", 1.5},
      {"bytes", "5"},
      {"checksum", "xxh3:2"},
      {"checksum", "xxh3:000000000000000g"},
      {"checksum", "sha256:000000000000000000"},
  };
  for (const auto& [key, value] : wrong)
    EXPECT_THAT(with([&](Json& j) { j["files"][2][key] = value; }),
                HasSubstr("file 3 of its list is none of a backup"))
        << key << " " << value;
  // A model's files stand where they belong.
  for (const char* model : {"", ".", "..", "org/other"})
    EXPECT_THAT(with([&](Json& j) { j["files"][0]["model"] = model; }),
                HasSubstr("file 1 of its list is none of a backup"))
        << model;
  EXPECT_THAT(with([](Json& j) {
                j["files"][0]["model"] = "..";
                j["files"][0]["path"] = "conversations/../turns.mdb";
              }),
              HasSubstr("file 1 of its list is none of a backup"));
  EXPECT_THAT(with([](Json& j) { j["files"].push_back(j["files"][0]); }),
              HasSubstr("file 4 of its list is none of a backup"));
}

}  // namespace
}  // namespace perdure::cli
