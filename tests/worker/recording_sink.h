// What a worker sent, by request, with the order of a stream checked as it comes.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protocol/codec.h"
#include "protocol/messages.h"
#include "worker/generator.h"
#include "worker/said_answer.h"

namespace perdure::worker {

struct RecordedChoice {
  std::vector<TokenId> ids;
  std::string text;  // content
  SaidAnswer said;
  std::vector<protocol::Event> events;
  std::vector<protocol::TokenLogprobs> logprobs;
  uint32_t tokens_out = 0;
  uint64_t last_seq = 0;
  size_t payload_bytes = 0;
  std::optional<int32_t> from_arena;
  std::optional<protocol::End> end;
};

// Equal strings are equal bits.
inline std::vector<std::string> BitsOf(const std::vector<protocol::TokenLogprobs>& logprobs) {
  std::vector<std::string> bits;
  for (const protocol::TokenLogprobs& token : logprobs) bits.push_back(protocol::Encode(token));
  return bits;
}

struct RecordedRequest {
  std::optional<protocol::Accepted> accepted;
  std::map<int, RecordedChoice> choices;
  std::optional<protocol::Failed> failed;
};

class RecordingSink : public EventSink {
 public:
  void Send(const protocol::Accepted& message) override {
    RecordedRequest& request = Open(message.rid);
    EXPECT_FALSE(request.accepted) << "accepted twice";
    request.accepted = message;
  }
  void Send(const protocol::Begun& message) override {
    RecordedRequest& request = Open(message.rid);
    EXPECT_TRUE(request.accepted);
    RecordedChoice& choice = request.choices[message.choice];
    EXPECT_FALSE(choice.from_arena) << "begun twice";
    choice.from_arena = message.from_arena;
  }
  void Send(const protocol::Event& message) override {
    RecordedRequest& request = Open(message.rid);
    EXPECT_TRUE(request.accepted);
    RecordedChoice& choice = request.choices[message.choice];
    EXPECT_FALSE(choice.end) << "an event after the end";
    EXPECT_EQ(message.seq, choice.last_seq + 1);
    choice.last_seq = message.seq;
    choice.ids.insert(choice.ids.end(), message.token_ids.begin(), message.token_ids.end());
    choice.said.Add(message);
    choice.events.push_back(message);
    choice.text = choice.said.content;
    choice.logprobs.insert(choice.logprobs.end(), message.logprobs.begin(), message.logprobs.end());
    EXPECT_GE(message.tokens_out, choice.tokens_out);
    choice.tokens_out = message.tokens_out;
    choice.payload_bytes += protocol::Encode(message).size();
    ++events;
  }
  void Send(const protocol::End& message) override {
    RecordedChoice& choice = Open(message.rid).choices[message.choice];
    EXPECT_FALSE(choice.end) << "ended twice";
    EXPECT_EQ(message.seq, choice.last_seq + 1);
    EXPECT_EQ(message.usage.completion_tokens, static_cast<int32_t>(choice.ids.size()));
    EXPECT_EQ(message.usage.from_arena + message.usage.from_snapshot + message.usage.computed,
              message.usage.prompt_tokens);
    choice.end = message;
  }
  void Send(const protocol::Failed& message) override { Open(message.rid).failed = message; }

  void Send(const protocol::CacheAnswer& message) override { cache_answers.push_back(message); }
  void Send(const protocol::ConversationAnswer& message) override {
    conversation_answers.push_back(message);
  }
  void Send(const protocol::ConversationFile& message, UniqueFd file) override {
    files[message.rid] = {message, std::make_shared<UniqueFd>(std::move(file))};
  }
  void Send(const protocol::Forgotten& message) override {
    forgotten.insert(forgotten.end(), message.rids.begin(), message.rids.end());
  }
  void Send(const protocol::Cleared& message) override { cleared.push_back(message.rid); }

  // A stream that another sink has the beginning of.
  void Continue(protocol::RequestId rid, const protocol::Accepted& accepted,
                const protocol::ChoiceSoFar& choice) {
    requests[rid].accepted = accepted;
    requests[rid].choices[0].last_seq = choice.last_seq;
    requests[rid].choices[0].ids = choice.token_ids;
  }

  RecordedRequest& operator[](protocol::RequestId rid) { return requests[rid]; }

  std::map<protocol::RequestId, RecordedRequest> requests;
  std::vector<protocol::RequestId> cleared;
  std::vector<protocol::CacheAnswer> cache_answers;
  std::vector<protocol::ConversationAnswer> conversation_answers;
  std::map<protocol::RequestId, std::pair<protocol::ConversationFile, std::shared_ptr<UniqueFd>>>
      files;
  std::vector<protocol::RequestId> forgotten;
  std::map<protocol::RequestId, bool> closed;  // cancelled or released: nothing may follow
  size_t events = 0;

 private:
  RecordedRequest& Open(protocol::RequestId rid) {
    RecordedRequest& request = requests[rid];
    EXPECT_FALSE(closed[rid]) << "a message of a request that was given up";
    EXPECT_FALSE(request.failed) << "a message after Failed";
    return request;
  }
};

}  // namespace perdure::worker
