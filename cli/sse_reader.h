// Server-sent events, cut out of a byte stream that comes in pieces of any size.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace perdure::cli {

class SseReader {
 public:
  // Calls `on_data` with the data of each event that `piece` completes. Comments and other fields
  // are passed over; several data lines of one event are joined by line feeds.
  void Append(std::string_view piece, const std::function<void(std::string_view data)>& on_data);

 private:
  std::string line_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace perdure::cli
