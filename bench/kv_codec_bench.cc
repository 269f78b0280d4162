// How far pages of KV shrink, and how fast: zstd and lz4, on the bytes as they are and on planes
// (all first bytes of the numbers, then all second ones). On one core; beside it a copy, and the
// check of a page that is read.
//
//   kv_codec_bench KV.MDB MODEL     (a copy of a service's; bench/kv_codec_bench.py makes one)
#include <fmt/format.h>
#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/log.h"
#include "shm/layout.h"
#include "snapshot/kv_file.h"

namespace perdure::bench {
namespace {

using Data = std::vector<std::byte>;
constexpr int kRuns = 5;

double NowS() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Split(const Data& from, Data* to) {
  const size_t half = from.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    (*to)[i] = from[2 * i];
    (*to)[half + i] = from[2 * i + 1];
  }
}
void Join(const Data& from, Data* to) {
  const size_t half = from.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    (*to)[2 * i] = from[i];
    (*to)[2 * i + 1] = from[half + i];
  }
}

struct Codec {
  std::string name;
  std::function<size_t(const Data& from, Data* to)> compress;
  std::function<void(const Data& from, size_t bytes, Data* to)> decompress;
};

Codec Zstd(int level) {
  auto* const in = ZSTD_createCCtx();
  auto* const out = ZSTD_createDCtx();
  return {fmt::format("zstd -{}", level),
          [=](const Data& from, Data* to) {
            to->resize(ZSTD_compressBound(from.size()));
            return ZSTD_compressCCtx(in, to->data(), to->size(), from.data(), from.size(), level);
          },
          [=](const Data& from, size_t bytes, Data* to) {
            ZSTD_decompressDCtx(out, to->data(), to->size(), from.data(), bytes);
          }};
}

Codec Lz4() {
  return {"lz4",
          [](const Data& from, Data* to) {
            to->resize(static_cast<size_t>(LZ4_compressBound(static_cast<int>(from.size()))));
            return static_cast<size_t>(LZ4_compress_default(
                reinterpret_cast<const char*>(from.data()), reinterpret_cast<char*>(to->data()),
                static_cast<int>(from.size()), static_cast<int>(to->size())));
          },
          [](const Data& from, size_t bytes, Data* to) {
            LZ4_decompress_safe(reinterpret_cast<const char*>(from.data()),
                                reinterpret_cast<char*>(to->data()), static_cast<int>(bytes),
                                static_cast<int>(to->size()));
          }};
}

double MedianS(const std::function<void()>& run) {
  std::vector<double> seconds;
  for (int i = 0; i < kRuns; ++i) {
    const double begin = NowS();
    run();
    seconds.push_back(NowS() - begin);
  }
  std::ranges::sort(seconds);
  return seconds[kRuns / 2];
}

void Measure(const std::string& bits, const std::vector<Data>& pages) {
  size_t bytes = 0, largest = 0;
  for (const Data& page : pages) {
    bytes += page.size();
    largest = std::max(largest, page.size());
  }
  const auto speed = [&](double seconds) { return static_cast<double>(bytes) / seconds / 1e6; };
  fmt::print("{} pages of {}: {:.1f} MB\n", pages.size(), bits, static_cast<double>(bytes) / 1e6);
  Data back(largest), planes(largest);
  const double copy_s = MedianS([&] {
    for (const Data& page : pages) std::memcpy(back.data(), page.data(), page.size());
  });
  volatile uint64_t sink = 0;
  const double hash_s = MedianS([&] {
    for (const Data& page : pages) sink = sink + Hash64(page);
  });
  fmt::print("  copy {:.0f} MB/s, hash {:.0f} MB/s\n", speed(copy_s), speed(hash_s));
  for (const Codec& codec : {Zstd(1), Zstd(3), Lz4()}) {
    for (const bool splits : {false, true}) {
      std::vector<Data> packed(pages.size());
      std::vector<size_t> sizes(pages.size());
      Data buffer;
      const double in_s = MedianS([&] {
        for (size_t i = 0; i < pages.size(); ++i) {
          planes.resize(pages[i].size());
          if (splits) Split(pages[i], &planes);
          sizes[i] = codec.compress(splits ? planes : pages[i], &buffer);
          packed[i].assign(buffer.begin(), buffer.begin() + static_cast<long>(sizes[i]));
        }
      });
      bool is_right = true;
      const double out_s = MedianS([&] {
        for (size_t i = 0; i < pages.size(); ++i) {
          back.resize(pages[i].size());
          planes.resize(pages[i].size());
          codec.decompress(packed[i], sizes[i], splits ? &planes : &back);
          if (splits) Join(planes, &back);
          is_right = is_right && std::memcmp(back.data(), pages[i].data(), back.size()) == 0;
        }
      });
      size_t all = 0;
      for (const size_t each : sizes) all += each;
      fmt::print("  {:<8}{:<8}{:.3f} of the bytes, {:>5.0f} MB/s in, {:>5.0f} MB/s out{}\n",
                 codec.name, splits ? "planes" : "",
                 static_cast<double>(all) / static_cast<double>(bytes), speed(in_s), speed(out_s),
                 is_right ? "" : "  WRONG");
    }
  }
}

int Run(const char* file, const char* model) {
  auto kv = snapshot::KvFile::Open(
      {.file = file, .model = model, .bytes_max = uint64_t{1} << 40, .read_only = true});
  if (!kv) {
    fmt::print(stderr, "kv_codec_bench: {}\n", kv.error().message);
    return 1;
  }
  std::map<std::string, std::vector<Data>> by_bits;
  size_t bytes = 0;
  for (const snapshot::StoredPage& page : (*kv)->TakePages()) {
    if (bytes > size_t{1} << 30) break;
    Data data(page.data_bytes);
    if (!(*kv)->Read(page, data)) continue;
    bytes += data.size();
    constexpr const char* kBits[] = {"16", "8", "4"};
    // Those that end a chain have numbers that nobody uses.
    const bool is_full = page.tokens.size() == shm::kArenaPageTokens;
    by_bits[fmt::format("{} bits, {}", kBits[static_cast<size_t>(page.key.format)],
                        is_full ? "full" : "partial")]
        .push_back(std::move(data));
  }
  for (const auto& [bits, pages] : by_bits) Measure(bits, pages);
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) {
  perdure::InitLogging("kv_codec_bench", perdure::LogLevel::kWarning);
  if (argc != 3) {
    std::fprintf(stderr, "kv_codec_bench KV.MDB MODEL\n");
    return 100;
  }
  return perdure::bench::Run(argv[1], argv[2]);
}
