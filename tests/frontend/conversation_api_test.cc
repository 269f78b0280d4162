#include "frontend/conversation_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
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
           Row{"DELETE", "/v1/conversations?user=", "", "user"},
           Row{"DELETE", "/v1/conversations?all=true&user=", "", "user"},
           Row{"GET", "/v1/conversations?tenant=0123456789abcdef", "", "tenant"},
           Row{"GET", "/v1/conversations?after_tenant=0123456789abcdef", "", "after_tenant"},
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

TEST(ConversationApi, AdminsHaveTheSameOfAllTenants) {
  EXPECT_EQ(ConversationPathOf("/admin/conversations"), ConversationPath::kAll);
  EXPECT_EQ(ConversationPathOf("/admin/conversations/a"), ConversationPath::kOne);
  EXPECT_EQ(ConversationPathOf("/admin/conversations/tenants"), ConversationPath::kOne);
  EXPECT_EQ(ConversationPathOf("/admin/conversations/a/fork"), ConversationPath::kAction);
  EXPECT_EQ(ConversationPathOf("/admin/tenants"), ConversationPath::kTenants);
  for (const char* path :
       {"/admin", "/admin/", "/admin/conversation", "/admin/conversations/", "/admin/tenants/",
        "/admin/tenants/a", "/v1/tenants", "/admin/v1/conversations", "/admin//conversations"})
    EXPECT_EQ(ConversationPathOf(path), ConversationPath::kNone) << path;
  EXPECT_TRUE(IsOfAdmin("/admin/conversations"));
  EXPECT_FALSE(IsOfAdmin("/v1/conversations"));
  EXPECT_EQ(ConversationMethods(ConversationPath::kTenants), "GET, HEAD");

  struct Row {
    const char *method, *target, *body;
    ConversationOperation operation;
    std::optional<uint64_t> owner;
  };
  constexpr uint64_t kTenant = 0x0123456789abcdef;
  for (const Row& row : {
           Row{"GET", "/admin/conversations", "", ConversationOperation::kList, {}},
           Row{"GET", "/admin/conversations?tenant=0123456789ABCDEF", "",
               ConversationOperation::kList, kTenant},
           Row{"POST", "/admin/conversations", "{}", ConversationOperation::kImport, {}},
           Row{"POST", "/admin/conversations?tenant=0123456789abcdef", "{}",
               ConversationOperation::kImport, kTenant},
           Row{"DELETE", "/admin/conversations?tenant=0123456789abcdef", "",
               ConversationOperation::kDeleteAll, kTenant},
           Row{"DELETE",
               "/admin/conversations?user=anna",
               "",
               ConversationOperation::kDeleteAll,
               {}},
           Row{"DELETE",
               "/admin/conversations?all=true",
               "",
               ConversationOperation::kDeleteAll,
               {}},
           Row{"GET", "/admin/conversations/a", "", ConversationOperation::kGet, {}},
           Row{"DELETE", "/admin/conversations/a?tenant=0000000000000001", "",
               ConversationOperation::kDelete, 1},
           Row{"POST", "/admin/conversations/a/fork?tenant=ffffffffffffffff", "",
               ConversationOperation::kFork, UINT64_MAX},
           Row{"POST",
               "/admin/conversations/a/rewind",
               R"({"turn":1})",
               ConversationOperation::kRewind,
               {}},
           Row{"GET", "/admin/tenants", "", ConversationOperation::kTenants, {}},
       }) {
    const auto call = Parse(row.method, row.target, row.body);
    ASSERT_TRUE(call) << row.method << ' ' << row.target << ": " << call.error().message;
    EXPECT_EQ(call->command.operation, row.operation) << row.target;
    EXPECT_EQ(call->command.owner, row.owner) << row.target;
    EXPECT_TRUE(call->command.of_all_tenants);
    EXPECT_EQ(call->command.tenant, "") << "an admin is no tenant";
  }
  EXPECT_FALSE(Parse("GET", "/v1/conversations")->command.of_all_tenants);
  const auto behind =
      Parse("GET", "/admin/conversations?after=a&after_tenant=0000000000000002&model=m");
  ASSERT_TRUE(behind);
  EXPECT_EQ(behind->command.after_owner, 2u);
  EXPECT_EQ(behind->model, "m");
}

TEST(ConversationApi, RefusesOfAdminsByName) {
  struct Row {
    const char *method, *target, *param;
  };
  for (const Row& row : {
           Row{"GET", "/admin/conversations?tenant=", "tenant"},
           Row{"GET", "/admin/conversations?tenant=0123456789abcde", "tenant"},
           Row{"GET", "/admin/conversations?tenant=0123456789abcdef0", "tenant"},
           Row{"GET", "/admin/conversations?tenant=0123456789abcdeg", "tenant"},
           Row{"GET", "/admin/conversations?tenant=-123456789abcdef", "tenant"},
           Row{"GET", "/admin/conversations?tenant=0x23456789abcdef", "tenant"},
           Row{"GET", "/admin/conversations?after_tenant=1", "after_tenant"},
           Row{"GET", "/admin/conversations/a?after_tenant=0123456789abcdef", "after_tenant"},
           Row{"GET", "/admin/tenants?tenant=0123456789abcdef", "tenant"},
           Row{"GET", "/admin/tenants?limit=1", "limit"},
           Row{"DELETE", "/admin/conversations", "all"},
           Row{"DELETE", "/admin/conversations?all=false", "all"},
           Row{"DELETE", "/admin/conversations?user=", "user"},
           Row{"DELETE", "/admin/conversations?tenant=0123456789abcdef&user=", "user"},
       }) {
    const auto call = Parse(row.method, row.target);
    ASSERT_FALSE(call) << row.method << ' ' << row.target;
    EXPECT_EQ(call.error().code, ErrorCode::invalid_request);
    EXPECT_EQ(call.error().param, row.param) << row.target;
  }
}

TEST(ConversationApi, AUserIsEnoughToDeleteAllOfTheirs) {
  const auto call = Parse("DELETE", "/v1/conversations?user=anna");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->command.user, "anna");
}

}  // namespace
}  // namespace perdure::frontend
