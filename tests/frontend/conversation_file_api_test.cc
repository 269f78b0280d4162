#include "frontend/conversation_file_api.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using protocol::ConversationFileOperation;
using Path = ConversationFilePath;

Result<ConversationFileCall> Parse(const std::string& method, const std::string& target,
                                   const std::string& body = "") {
  HttpRequest request;
  request.method = method;
  request.target = target;
  request.body = body;
  return ParseConversationFileCall(request, "somebody");
}

TEST(ConversationFileApi, KnowsItsPaths) {
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/a/export"), Path::kExport);
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/a%2Fb/export"), Path::kExport);
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/export/export"), Path::kExport);
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/a/save"), Path::kSave);
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/load"), Path::kLoad);
  EXPECT_EQ(ConversationFilePathOf("/v1/conversations/import"), Path::kImport);
  EXPECT_EQ(ConversationFilePathOf("/v1/saved"), Path::kAllSaved);
  EXPECT_EQ(ConversationFilePathOf("/v1/saved/a"), Path::kSaved);
  EXPECT_EQ(ConversationFilePathOf("/v1/saved/a%2Fb"), Path::kSaved);
  for (const char* path :
       {"", "/", "/v1/saved/", "/v1/savedx", "/v1/saved/a/b", "/v1/conversations/export",
        "/v1/conversations//export", "/v1/conversations/save", "/v1/conversations/a/b/export",
        "/v1/conversations/a/export/", "/v1/conversations/a/load", "/v1/conversations/load/"})
    EXPECT_EQ(ConversationFilePathOf(path), Path::kNone) << path;
  EXPECT_TRUE(IsUpload("POST", "/v1/conversations/import"));
  EXPECT_FALSE(IsUpload("GET", "/v1/conversations/import"));
  EXPECT_FALSE(IsUpload("POST", "/v1/conversations/load"));
}

TEST(ConversationFileApi, MethodAndPathSayWhatIsAskedFor) {
  struct Row {
    const char *method, *target, *body;
    ConversationFileOperation operation;
  };
  for (const Row& row : {
           Row{"GET", "/v1/conversations/a/export", "", ConversationFileOperation::kExport},
           Row{"POST", "/v1/conversations/a/save", R"({"name":"n"})",
               ConversationFileOperation::kSave},
           Row{"POST", "/v1/conversations/load", R"({"name":"n"})",
               ConversationFileOperation::kLoad},
           Row{"GET", "/v1/saved", "", ConversationFileOperation::kListSaved},
           Row{"DELETE", "/v1/saved/n", "", ConversationFileOperation::kDeleteSaved},
       }) {
    const auto call = Parse(row.method, row.target, row.body);
    ASSERT_TRUE(call) << row.target << ": " << call.error().message;
    EXPECT_EQ(call->command.operation, row.operation) << row.target;
    EXPECT_EQ(call->command.tenant, "somebody");
    EXPECT_EQ(call->upload, nullptr);
  }
}

TEST(ConversationFileApi, ReadsWhatGoesWithIt) {
  const auto exported = Parse("GET", "/v1/conversations/a%2Fb/export?kv=false&model=org%2Fm");
  ASSERT_TRUE(exported);
  EXPECT_EQ(exported->command.id, "a/b");
  EXPECT_EQ(exported->model, "org/m");
  EXPECT_FALSE(exported->command.kv);
  EXPECT_TRUE(Parse("GET", "/v1/conversations/a/export")->command.kv);
  const auto saved = Parse("POST", "/v1/conversations/a/save",
                           R"({"name":"x.cache","kv":false,"overwrite":true})");
  ASSERT_TRUE(saved);
  EXPECT_EQ(saved->command.name, "x.cache");
  EXPECT_FALSE(saved->command.kv);
  EXPECT_TRUE(saved->command.overwrite);
  const auto plain = Parse("POST", "/v1/conversations/a/save", R"({"name":"x"})");
  EXPECT_TRUE(plain->command.kv);
  EXPECT_FALSE(plain->command.overwrite);
  const auto loaded = Parse("POST", "/v1/conversations/load", R"({"name":"x","id":"new"})");
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->command.name, "x");
  EXPECT_EQ(loaded->command.id, "new");
  EXPECT_EQ(Parse("DELETE", "/v1/saved/a%2Fb")->command.name, "a/b");
  HttpRequest import;
  import.method = "POST";
  import.target = "/v1/conversations/import?id=new";
  import.upload = std::make_shared<UploadedFile>();
  EXPECT_FALSE(ParseConversationFileCall(import, "somebody")) << "it is empty";
  import.upload->bytes = 1;
  const auto imported = ParseConversationFileCall(import, "somebody");
  ASSERT_TRUE(imported) << imported.error().message;
  EXPECT_EQ(imported->upload, import.upload);
  EXPECT_EQ(imported->command.id, "new");
}

TEST(ConversationFileApi, RefusesByName) {
  struct Row {
    std::string method, target, body, param;
  };
  const std::string long_name(limits::kSavedNameBytesMax + 1, 'x');
  for (const Row& row : {
           Row{"GET", "/v1/conversations/a/export?kv=1", "", "kv"},
           Row{"GET", "/v1/conversations/a/export?name=n", "", "name"},
           Row{"GET", "/v1/conversations/a%0A/export", "", "id"},
           Row{"GET", "/v1/conversations/a%2/export", "", "id"},
           Row{"POST", "/v1/conversations/a/save", "", "name"},
           Row{"POST", "/v1/conversations/a/save", "[]", ""},
           Row{"POST", "/v1/conversations/a/save", R"({"name":""})", "name"},
           Row{"POST", "/v1/conversations/a/save", R"({"name":7})", "name"},
           Row{"POST", "/v1/conversations/a/save", R"({"name":"a\nb"})", "name"},
           Row{"POST", "/v1/conversations/a/save", R"({"name":")" + long_name + "\"}", "name"},
           Row{"POST", "/v1/conversations/a/save", R"({"name":"n","kv":"yes"})", "kv"},
           Row{"POST", "/v1/conversations/a/save", R"({"name":"n","overwrite":1})", "overwrite"},
           Row{"POST", "/v1/conversations/load", R"({"id":"a"})", "name"},
           Row{"POST", "/v1/conversations/load", R"({"name":"n","id":""})", "id"},
           Row{"POST", "/v1/conversations/import", "", ""},
           Row{"POST", "/v1/conversations/import?id=", "", "id"},
           Row{"DELETE", "/v1/saved/" + long_name, "", "name"},
           Row{"DELETE", "/v1/saved/a%00", "", "name"},
           Row{"GET", "/v1/saved?limit=1", "", "limit"},
       }) {
    const auto call = Parse(row.method, row.target, row.body);
    ASSERT_FALSE(call) << row.method << ' ' << row.target << ' ' << row.body;
    EXPECT_EQ(call.error().code, ErrorCode::invalid_request);
    EXPECT_EQ(call.error().param, row.param) << row.target << ' ' << row.body;
  }
}

}  // namespace
}  // namespace perdure::frontend
