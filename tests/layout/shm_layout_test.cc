// The tables of docs/shm_layout.md, made of the structs themselves and held against the page.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "shm/layout.h"

namespace perdure::shm {
namespace {

struct Field {
  const char* name;
  size_t offset;
  size_t bytes;
  const char* written;
};

// "Written by" of every field; what a field means is told where it is declared.
#define FIELD(field, written) \
  Field { #field, offsetof(Struct, field), sizeof(Struct::field), written }

std::vector<Field> StatusFields() {
  using Struct = StatusShm;
  constexpr const char* kOnce = "supervisor, before the child starts";
  constexpr const char* kChild = "child, at any time";
  constexpr const char* kStep = "child, before a step; before manifest_step";
  return {FIELD(magic, kOnce),
          FIELD(version, kOnce),
          FIELD(struct_bytes, kOnce),
          FIELD(pid, kChild),
          FIELD(phase, kChild),
          FIELD(progress, kChild),
          FIELD(load_bytes_done, kChild),
          FIELD(load_bytes_total, kChild),
          FIELD(steps_completed, kChild),
          FIELD(tokens_prefilled, kChild),
          FIELD(tokens_generated, kChild),
          FIELD(sequences_running, kChild),
          FIELD(sequences_waiting, kChild),
          FIELD(kv_bytes_used, kChild),
          FIELD(kv_bytes_reserved, kChild),
          FIELD(kv_pages_damaged, kChild),
          FIELD(manifest_step, "child: release, before a step; 0 after it"),
          FIELD(manifest_count, kStep),
          FIELD(panic_bytes, "child: release, after panic_text"),
          FIELD(manifest_rids, kStep),
          FIELD(panic_text, "child, when a CHECK fails")};
}

std::vector<Field> HeaderFields() {
  using Struct = ArenaHeaderShm;
  constexpr const char* kOnce = "writer, when it initializes the arena; before magic";
  return {FIELD(magic, "writer, when it initializes the arena: release, last"),
          FIELD(version, kOnce),
          FIELD(header_bytes, kOnce),
          FIELD(signature, kOnce),
          FIELD(fingerprint, kOnce),
          FIELD(numerics, kOnce),
          FIELD(page_bytes, kOnce),
          FIELD(slots_per_slab, kOnce),
          FIELD(page_tokens, kOnce),
          FIELD(pages_max, kOnce),
          FIELD(conversations_max, kOnce),
          FIELD(slabs, kOnce),
          FIELD(pages_wanted, kOnce),
          FIELD(slab_bytes, kOnce),
          FIELD(conversations_offset, kOnce),
          FIELD(descriptors_offset, kOnce),
          FIELD(slabs_offset, kOnce),
          FIELD(file_bytes, kOnce),
          FIELD(checksum, kOnce),
          FIELD(epoch, "writer, when it attaches: release, after writer"),
          FIELD(writer, "writer, when it attaches"),
          FIELD(descriptors_granted, "writer: release, when it has asked the system for more"),
          FIELD(reserved, "nobody")};
}

std::vector<Field> DescriptorFields() {
  using Struct = PageDescriptorShm;
  constexpr const char* kSeal = "writer, when it seals the page; before state";
  return {FIELD(state, "writer: kOpen before the page's content changes, kSealed last"),
          FIELD(slot, "writer: before state; later when the numbers have moved or are dropped"),
          FIELD(position, kSeal),
          FIELD(parent_page, kSeal),
          FIELD(format, kSeal),
          FIELD(count, kSeal),
          FIELD(drawn, kSeal),
          FIELD(reserved, "nobody"),
          FIELD(owner, kSeal),
          FIELD(mask, kSeal),
          FIELD(chain_hash, kSeal),
          FIELD(data_checksum, kSeal),
          FIELD(checksum, "writer, when it seals the page; after the fields it covers"),
          FIELD(last_use, "writer, at any time: relaxed"),
          FIELD(tokens, kSeal),
          FIELD(reserved_end, "nobody")};
}

std::vector<Field> ConversationFields() {
  using Struct = ConversationShm;
  constexpr const char* kStore = "writer, when a turn has ended; before state";
  return {FIELD(state, "writer: 1 after all else, before an older record becomes 0"),
          FIELD(tail_page, kStore),
          FIELD(version, kStore),
          FIELD(owner, kStore),
          FIELD(tail_hash, kStore),
          FIELD(used_unix_ms, kStore),
          FIELD(turns, kStore),
          FIELD(last_token, kStore),
          FIELD(flags, kStore),
          FIELD(chunk_size, kStore),
          FIELD(segments, kStore),
          FIELD(messages, kStore),
          FIELD(id_bytes, kStore),
          FIELD(type_bytes, kStore),
          FIELD(segment, kStore),
          FIELD(message_hashes, kStore),
          FIELD(id, kStore),
          FIELD(type, kStore),
          FIELD(reserved, "nobody"),
          FIELD(checksum, kStore)};
}

std::string Table(const char* name, size_t bytes, const std::vector<Field>& fields) {
  std::string text = fmt::format(
      "### {}: {} bytes\n\n| offset | bytes | field | written by |\n|--:|--:|---|---|\n", name,
      bytes);
  size_t end = 0;
  for (const Field& field : fields) {
    EXPECT_EQ(field.offset, end) << name << " has a field before " << field.name
                                 << " that is not in the table";
    end = field.offset + field.bytes;
    text += fmt::format("| {} | {} | `{}` | {} |\n", field.offset, field.bytes, field.name,
                        field.written);
  }
  EXPECT_EQ(end, bytes) << name << " has fields at its end that are not in the table";
  return text + "\n";
}

TEST(ShmLayout, IsAsThePageSays) {
  const std::string tables =
      Table("StatusShm", sizeof(StatusShm), StatusFields()) +
      Table("ArenaHeaderShm", sizeof(ArenaHeaderShm), HeaderFields()) +
      Table("PageDescriptorShm", sizeof(PageDescriptorShm), DescriptorFields()) +
      Table("ConversationShm", sizeof(ConversationShm), ConversationFields());
  std::ifstream in(PERDURE_SOURCE_DIR "/docs/shm_layout.md");
  std::stringstream page;
  page << in.rdbuf();
  EXPECT_NE(page.str().find("<!-- tables -->\n\n" + tables + "<!-- end -->"), std::string::npos)
      << "docs/shm_layout.md should have, between <!-- tables --> and <!-- end -->:\n\n"
      << tables;
}

}  // namespace
}  // namespace perdure::shm
