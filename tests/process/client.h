// Chats with a service, as a client program would: over HTTP.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"

namespace perdure::process_tests {

// A chat with one user message, temperature 0, and the given members on top.
Json ChatBody(const std::string& content, const Json& more);
// A chat that goes on for `tokens` tokens, whatever the model wants.
Json LongChatBody(int tokens, const Json& more);

struct Answer {
  int status = 0;                  // 0: no HTTP response
  Json body;                       // null if it is not JSON
  std::string content() const;     // of choice 0
  std::string error_code() const;  // error.code
  std::string error_message() const;
  std::string finish_reason() const;
};

Answer Get(const std::string& url);
Answer Post(const std::string& url, const Json& body);
Answer PostWithKey(const std::string& url, const Json& body, const std::string& api_key);
Answer Delete(const std::string& url);
Answer Chat(const std::string& base_url, const Json& body);

// A streamed chat on a thread of its own.
class Stream {
 public:
  // `body` gets "stream": true.
  Stream(const std::string& base_url, Json body);
  ~Stream();

  // Until so many content chunks have come, or the stream has ended. False if it ended first.
  bool AwaitChunks(int count);
  void Hangup() { hangup_ = true; }  // closes the connection at the next chunk
  void Join();                       // until the stream has ended
  bool ended() const;

  // After Join:
  int status() const { return status_; }
  const std::string& content() const { return content_; }
  const std::string& finish_reason() const { return finish_reason_; }
  const std::string& error_code() const { return error_code_; }
  const std::string& transport_error() const { return transport_error_; }
  bool done() const { return done_; }  // data: [DONE] came
  const std::vector<Json>& events() const { return events_; }
  int chunks() const;

 private:
  void Run(const std::string& base_url, const std::string& body);
  void OnData(std::string_view data);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> hangup_{false};
  bool ended_ = false;
  int chunks_ = 0;
  int status_ = 0;
  bool done_ = false;
  std::vector<Json> events_;
  std::string content_, finish_reason_, error_code_, transport_error_;
  std::thread thread_;
};

}  // namespace perdure::process_tests
