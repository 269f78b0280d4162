#include "frontend/conversation_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using protocol::ConversationOperation;
using testing::HasSubstr;

Result<ConversationCall> Parse(const std::string& method, const std::string& target,
                               const std::string& body = "") {
  HttpRequest request;
  request.method = method;
  request.target = target;
  request.body = body;
  return ParseConversationCall(request, "somebody");
}

TEST(ConversationApi, KnowsItsPaths) {
  EXPECT_EQ(ConversationPathOf("/v1/conversations"), ConversationPath::kAll);
  EXPECT_EQ(ConversationPathOf("/v1/conversations/a"), ConversationPath::kOne);
  EXPECT_EQ(ConversationPathOf("/v1/conversations/a%2Fb"), ConversationPath::kOne);
  EXPECT_EQ(ConversationPathOf("/v1/conversations/a/fork"), ConversationPath::kAction);
  EXPECT_EQ(ConversationPathOf("/v1/conversations/a/rewind"), ConversationPath::kAction);
  for (const char* path :
       {"", "/", "/v1", "/v1/conversation", "/v1/conversationsx", "/v1/conversations/",
        "/v1/conversations//", "/v1/conversations//fork", "/v1/conversations/a/",
        "/v1/conversations/a/b", "/v1/conversations/a/fork/", "/v1/conversations/a/Fork"})
    EXPECT_EQ(ConversationPathOf(path), ConversationPath::kNone) << path;
}

TEST(ConversationApi, MethodAndPathSayWhatIsAskedFor) {
  struct Row {
    const char *method, *target, *body;
    ConversationOperation operation;
  };
  for (const Row& row : {
           Row{"GET", "/v1/conversations", "", ConversationOperation::kList},
           Row{"HEAD", "/v1/conversations", "", ConversationOperation::kList},
           Row{"POST", "/v1/conversations", "{}", ConversationOperation::kImport},
           Row{"DELETE", "/v1/conversations?all=true", "", ConversationOperation::kDeleteAll},
           Row{"GET", "/v1/conversations/a", "", ConversationOperation::kGet},
           Row{"DELETE", "/v1/conversations/a", "", ConversationOperation::kDelete},
           Row{"POST", "/v1/conversations/a/fork", "", ConversationOperation::kFork},
           Row{"POST", "/v1/conversations/a/rewind", R"({"turn":1})",
               ConversationOperation::kRewind},
       }) {
    const auto call = Parse(row.method, row.target, row.body);
    ASSERT_TRUE(call) << row.method << ' ' << row.target << ": " << call.error().message;
    EXPECT_EQ(call->command.operation, row.operation) << row.target;
    EXPECT_EQ(call->command.tenant, "somebody");
    EXPECT_EQ(call->model, "");
  }
}

TEST(ConversationApi, ReadsWhatGoesWithIt) {
  const auto list = Parse("GET", "/v1/conversations?limit=5&after=a%20b&user=u&model=org%2Fm");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->model, "org/m");
  EXPECT_EQ(list->command.limit, 5);
  EXPECT_EQ(list->command.after, "a b");
  EXPECT_EQ(list->command.user, "u");
  EXPECT_EQ(Parse("GET", "/v1/conversations")->command.limit, limits::kConversationsListed);
  const auto get = Parse("GET", "/v1/conversations/a%2Fb?turn=3&tokens=true");
  ASSERT_TRUE(get);
  EXPECT_EQ(get->command.id, "a/b");
  EXPECT_EQ(get->command.turn, 3u);
  EXPECT_TRUE(get->command.tokens);
  const auto fork = Parse("POST", "/v1/conversations/a/fork", R"({"turn":2,"id":"b"})");
  ASSERT_TRUE(fork);
  EXPECT_EQ(fork->command.turn, 2u);
  EXPECT_EQ(fork->command.new_id, "b");
  const auto import = Parse("POST", "/v1/conversations?id=new", "anything");
  ASSERT_TRUE(import);
  EXPECT_EQ(import->command.document, "anything");
  EXPECT_EQ(import->command.new_id, "new");
}

TEST(ConversationApi, RefusesByName) {
  struct Row {
    const char *method, *target, *body, *param;
  };
  const std::string long_id(limits::kConversationIdBytesMax + 1, 'x');
  const std::string long_target = "/v1/conversations/" + long_id;
  for (const Row& row : {
           Row{"GET", "/v1/conversations?limit=0", "", "limit"},
           Row{"GET", "/v1/conversations?limit=101", "", "limit"},
           Row{"GET", "/v1/conversations?limit=1x", "", "limit"},
           Row{"GET", "/v1/conversations?turn=1", "", "turn"},
           Row{"GET", "/v1/conversations/a?turn=0", "", "turn"},
           Row{"GET", "/v1/conversations/a?tokens=1", "", "tokens"},
           Row{"GET", "/v1/conversations/a?limit=1", "", "limit"},
           Row{"GET", "/v1/conversations/a%0Ab", "", "id"},
           Row{"GET", "/v1/conversations/a%2", "", "id"},
           Row{"GET", long_target.c_str(), "", "id"},
           Row{"DELETE", "/v1/conversations", "", "all"},
           Row{"DELETE", "/v1/conversations?all=false", "", "all"},
           Row{"DELETE", "/v1/conversations?user=", "", "all"},
           Row{"DELETE", "/v1/conversations/a?all=true", "", "all"},
           Row{"POST", "/v1/conversations", "", ""},
           Row{"POST", "/v1/conversations/a/fork", "[]", ""},
           Row{"POST", "/v1/conversations/a/fork", "{", ""},
           Row{"POST", "/v1/conversations/a/fork", R"({"turn":-1})", "turn"},
           Row{"POST", "/v1/conversations/a/fork", R"({"id":""})", "id"},
           Row{"POST", "/v1/conversations/a/fork", R"({"id":7})", "id"},
           Row{"POST", "/v1/conversations/a/rewind", "", "turn"},
           Row{"POST", "/v1/conversations/a/rewind", R"({"turn":"1"})", "turn"},
       }) {
    const auto call = Parse(row.method, row.target, row.body);
    ASSERT_FALSE(call) << row.method << ' ' << row.target << ' ' << row.body;
    EXPECT_EQ(call.error().code, ErrorCode::invalid_request);
    EXPECT_EQ(call.error().param, row.param) << row.target << ' ' << row.body;
  }
}

TEST(ConversationApi, AUserIsEnoughToDeleteAllOfTheirs) {
  const auto call = Parse("DELETE", "/v1/conversations?user=anna");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->command.user, "anna");
}

}  // namespace
}  // namespace perdure::frontend
