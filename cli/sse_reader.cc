#include "cli/sse_reader.h"

namespace perdure::cli {

void SseReader::Append(std::string_view piece,
                       const std::function<void(std::string_view data)>& on_data) {
  for (const char c : piece) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) {
      if (has_data_) on_data(data_);
      data_.clear();
      has_data_ = false;
    } else if (line.starts_with("data:")) {
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      if (has_data_) data_ += '\n';
      data_ += line;
      has_data_ = true;
    }
    line_.clear();
  }
}

}  // namespace perdure::cli
