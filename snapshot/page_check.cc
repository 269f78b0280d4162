#include "snapshot/page_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace perdure::snapshot {
namespace {

// LMDB 0.9's own numbers.
constexpr uint32_t kMagic = 0xBEEFC0DE, kVersion = 1;
constexpr size_t kPageHeader = 16, kNodeHeader = 8;
constexpr uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4;
constexpr uint16_t kBigData = 1, kSubData = 2, kDupData = 4;
constexpr uint64_t kNoPage = UINT64_MAX;
constexpr size_t kKeyBytesMax = 511;
constexpr uint16_t kDepthMax = 32;  // of LMDB's cursors
constexpr uint64_t kFirstPage = 2;  // behind the two that describe the file

struct TreeDisk {
  uint32_t pad;
  uint16_t flags, depth;
  uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
static_assert(sizeof(TreeDisk) == 48);

struct MetaDisk {
  uint64_t page_number;
  uint16_t pad, flags;
  uint32_t bounds;
  uint32_t magic, version;
  uint64_t address, map_bytes;
  TreeDisk trees[2];  // of free pages; of the databases
  uint64_t last_page, transaction;
};
static_assert(sizeof(MetaDisk) == 152);

template <class T>
T At(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Node {
  size_t at = 0, end = 0;
  uint32_t low = 0;  // of a leaf: bytes of its value
  uint16_t flags = 0, key_bytes = 0;
  size_t value() const { return at + kNodeHeader + key_bytes; }
};

class Check {
 public:
  Check(int fd, const std::filesystem::path& file) : fd_(fd), file_(file) {}
  bool is_damaged() const { return is_damaged_; }

  Status Run() {
    MetaDisk metas[2];
    std::string bytes;
    RETURN_IF_ERROR(Read(0, sizeof(MetaDisk), &bytes));
    metas[0] = At<MetaDisk>(bytes, 0);
    page_bytes_ = metas[0].trees[0].pad;
    if (page_bytes_ < 512 || page_bytes_ > 32768 || (page_bytes_ & (page_bytes_ - 1)) != 0)
      return Wrong("has an odd size of pages");
    RETURN_IF_ERROR(Read(page_bytes_, sizeof(MetaDisk), &bytes));
    metas[1] = At<MetaDisk>(bytes, 0);
    const MetaDisk& meta = metas[metas[1].transaction > metas[0].transaction ? 1 : 0];
    struct stat st {};
    if (fstat(fd_, &st) != 0) return ErrFromErrno(fmt::format("cannot read {}", file_.string()));
    // Pages at the end that are free may not have been written yet, so it may be shorter.
    constexpr uint64_t kFileBytesMax = uint64_t{1} << 46;
    if (meta.magic != kMagic || meta.version != kVersion ||
        meta.last_page >= kFileBytesMax / page_bytes_)
      return Wrong("does not describe itself rightly");
    last_page_ = meta.last_page;
    file_pages_ = static_cast<uint64_t>(st.st_size) / page_bytes_;
    used_.assign(std::min(file_pages_, last_page_ + 1), false);
    RETURN_IF_ERROR(CheckTree(meta.trees[1], Kind::kDatabases));
    return CheckTree(meta.trees[0], Kind::kFree);
  }

 private:
  enum class Kind { kFree, kDatabases, kDatabase };

  tl::unexpected<Error> Wrong(std::string_view what) {
    is_damaged_ = true;
    return Err(ErrorCode::io_error, fmt::format("{} is damaged: {}", file_.string(), what));
  }
  tl::unexpected<Error> WrongPage(uint64_t page, std::string_view what) {
    return Wrong(fmt::format("page {} {}", page, what));
  }

  Status Read(uint64_t at, size_t size, std::string* bytes) {
    bytes->resize(size);
    for (size_t done = 0; done < size;) {
      const ssize_t n =
          pread(fd_, bytes->data() + done, size - done, static_cast<off_t>(at + done));
      if (n == 0) return Wrong("it has been cut short");
      if (n < 0 && errno != EINTR)
        return ErrFromErrno(fmt::format("cannot read {}", file_.string()));
      done += static_cast<size_t>(std::max<ssize_t>(n, 0));
    }
    return {};
  }

  // `count` pages from this one on are somebody's, and nobody else's.
  Status Take(uint64_t page, uint64_t count) {
    if (page < kFirstPage || page >= used_.size() || count > used_.size() - page)
      return WrongPage(page, "lies beyond the file");
    for (uint64_t i = 0; i < count; ++i) {
      if (used_[page + i]) return WrongPage(page + i, "is used twice");
      used_[page + i] = true;
    }
    return {};
  }

  Status CheckTree(const TreeDisk& tree, Kind kind) {
    if (tree.root == kNoPage) return {};
    if (tree.depth == 0 || tree.depth > kDepthMax) return Wrong("a tree has an odd depth");
    return CheckPage(tree.root, tree.depth, kind, true);
  }

  Status CheckPage(uint64_t page, uint16_t depth, Kind kind, bool is_root) {
    RETURN_IF_ERROR(Take(page, 1));
    std::string bytes;
    RETURN_IF_ERROR(Read(page * page_bytes_, page_bytes_, &bytes));
    if (At<uint64_t>(bytes, 0) != page) return WrongPage(page, "is another one");
    if (At<uint16_t>(bytes, 10) != (depth > 1 ? kBranch : kLeaf))
      return WrongPage(page, "is of another kind");
    std::vector<Node> nodes;
    RETURN_IF_ERROR(FindNodes(page, bytes, depth > 1, &nodes));
    if (nodes.size() < (depth > 1 ? 2u : is_root ? 0u : 1u)) return WrongPage(page, "is empty");
    for (const Node& node : nodes) {
      if (depth > 1) {
        const uint64_t child = node.low | uint64_t{node.flags} << 32;
        RETURN_IF_ERROR(CheckPage(child, depth - 1, kind, false));
      } else {
        RETURN_IF_ERROR(CheckValue(page, bytes, node, kind));
      }
    }
    return {};
  }

  // All of them within the page, behind its list of them, and none in another.
  Status FindNodes(uint64_t page, const std::string& bytes, bool is_branch,
                   std::vector<Node>* nodes) {
    const size_t lower = At<uint16_t>(bytes, 12), upper = At<uint16_t>(bytes, 14);
    if (lower < kPageHeader || lower % 2 != 0 || lower > upper || upper > page_bytes_)
      return WrongPage(page, "has odd bounds");
    for (size_t at = kPageHeader; at < lower; at += 2) {
      Node node;
      node.at = At<uint16_t>(bytes, at);
      if (node.at < upper || node.at % 2 != 0 || node.at + kNodeHeader > page_bytes_)
        return WrongPage(page, "has an entry outside of it");
      node.low = At<uint32_t>(bytes, node.at);
      node.flags = At<uint16_t>(bytes, node.at + 4);
      node.key_bytes = At<uint16_t>(bytes, node.at + 6);
      if (node.key_bytes > kKeyBytesMax) return WrongPage(page, "has too long a key");
      size_t value = is_branch ? 0 : node.low;
      if (!is_branch && (node.flags & kBigData) != 0) value = sizeof(uint64_t);
      node.end = node.value() + value;
      node.end += node.end % 2;
      if (node.end > page_bytes_) return WrongPage(page, "has an entry that leaves it");
      nodes->push_back(node);
    }
    std::vector<std::pair<size_t, size_t>> places;
    for (const Node& node : *nodes) places.emplace_back(node.at, node.end);
    std::ranges::sort(places);
    for (size_t i = 1; i < places.size(); ++i)
      if (places[i].first < places[i - 1].second)
        return WrongPage(page, "has entries that overlap");
    return {};
  }

  Status CheckValue(uint64_t page, const std::string& bytes, const Node& node, Kind kind) {
    const bool is_tree = (node.flags & kSubData) != 0;
    if (node.flags > (kBigData | kSubData) || (node.flags & kDupData) != 0 ||
        is_tree != (kind == Kind::kDatabases) || (is_tree && node.flags != kSubData))
      return WrongPage(page, "has an entry of an unknown kind");
    if (is_tree) {
      if (node.low != sizeof(TreeDisk)) return WrongPage(page, "has an odd database");
      const auto tree = At<TreeDisk>(bytes, node.value());
      if (tree.flags != 0) return WrongPage(page, "has a database of an unknown kind");
      return CheckTree(tree, Kind::kDatabase);
    }
    uint64_t at = page * page_bytes_ + node.value();
    if ((node.flags & kBigData) != 0) {
      const auto first = At<uint64_t>(bytes, node.value());
      RETURN_IF_ERROR(CheckLong(first, node.low));
      at = first * page_bytes_ + kPageHeader;
    }
    return kind == Kind::kFree ? CheckFree(page, node, at) : Status();
  }

  // A value that has pages of its own.
  Status CheckLong(uint64_t first, uint64_t value_bytes) {
    RETURN_IF_ERROR(Take(first, 1));
    std::string header;
    RETURN_IF_ERROR(Read(first * page_bytes_, kPageHeader, &header));
    const uint64_t pages = At<uint32_t>(header, 12);
    if (At<uint64_t>(header, 0) != first || At<uint16_t>(header, 10) != kOverflow)
      return WrongPage(first, "is no long value");
    if (pages == 0 || kPageHeader + value_bytes > pages * page_bytes_)
      return WrongPage(first, "is a long value that is longer");
    return pages == 1 ? Status() : Take(first + 1, pages - 1);
  }

  // Free pages, the highest first. One that is in use would be overwritten.
  Status CheckFree(uint64_t page, const Node& node, uint64_t at) {
    if (node.key_bytes != sizeof(uint64_t) || node.low < sizeof(uint64_t))
      return WrongPage(page, "has an odd list of free pages");
    std::string list;
    RETURN_IF_ERROR(Read(at, node.low, &list));
    const auto count = At<uint64_t>(list, 0);
    if (count > list.size() / sizeof(uint64_t) - 1)
      return WrongPage(page, "has a list of free pages that is longer");
    uint64_t before = last_page_ + 1;
    for (uint64_t i = 1; i <= count; ++i) {
      const auto free = At<uint64_t>(list, i * sizeof(uint64_t));
      if (free < kFirstPage || free >= before)
        return WrongPage(page, "has a list of free pages that is in disorder");
      before = free;
      // What was never written lies beyond the file.
      if (free < used_.size()) RETURN_IF_ERROR(Take(free, 1));
    }
    return {};
  }

  const int fd_;
  const std::filesystem::path& file_;
  size_t page_bytes_ = 0;
  uint64_t last_page_ = 0, file_pages_ = 0;
  std::vector<bool> used_;
  bool is_damaged_ = false;
};

}  // namespace

Status CheckPages(const std::filesystem::path& file, bool* is_damaged) {
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return ErrFromErrno(fmt::format("cannot open {}", file.string()));
  Check check(fd.get(), file);
  Status status = check.Run();
  *is_damaged = check.is_damaged();
  return status;
}

}  // namespace perdure::snapshot
