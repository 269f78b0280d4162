// The files of a service's conversations, looked at by a test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/token.h"
#include "service.h"
#include "snapshot/kv_index.h"

namespace perdure::process_tests {

std::filesystem::path TurnsFile(const Service& service, const std::string& model = "nano");
std::filesystem::path KvFile(const Service& service, const std::string& model = "nano");

std::string BytesOf(const std::filesystem::path& file);
void WriteBytes(const std::filesystem::path& file, const std::string& bytes);
// As they stand in the files.
std::string BytesOf(const std::vector<TokenId>& ids);

// What the file has of pages; it may be written meanwhile. Empty, too, where that was in the way.
std::vector<snapshot::StoredPage> PagesOf(const std::filesystem::path& kv_file);

// Until the pages of a conversation of so many tokens, the model's last one included, are stored.
bool AwaitPages(const Service& service, int tokens, const std::string& model = "nano");

}  // namespace perdure::process_tests
