// What a test does to a file behind the back of its owner, who has it closed meanwhile.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace perdure::snapshot {

using RawDatabase = std::map<std::string, std::string>;

// All of a database; fails the test where it cannot be read.
RawDatabase ReadRaw(const std::filesystem::path& file, const std::string& database);
// Changes what stands under `key`; nothing: it is deleted.
void WriteRaw(const std::filesystem::path& file, const std::string& database,
              const std::string& key, const std::optional<std::string>& value);

}  // namespace perdure::snapshot
