#include "text/output/utf8_assembler.h"

#include "text/utf8.h"

namespace perdure::text {

void Utf8Assembler::Push(std::string_view bytes, std::string* out) {
  pending_ += bytes;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Char c = DecodeUtf8(pending_, at);
    if (c.incomplete) break;
    AppendUtf8(c.code_point, out);
    at += static_cast<size_t>(c.length);
  }
  pending_.erase(0, at);
}

void Utf8Assembler::Finish(std::string* out) {
  if (!pending_.empty()) *out += kReplacementUtf8;
  pending_.clear();
}

}  // namespace perdure::text
