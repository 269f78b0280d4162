#include "cli/conversations.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/limits.h"
#include "base/unique_fd.h"
#include "cli/admin_client.h"
#include "cli/conversations_text.h"
#include "cli/json_members.h"
#include "cli/output_file.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

constexpr const char* kAll = "/admin/conversations";

struct Task {
  const AdminClient& client;
  const ConversationsOptions& options;
  const std::string& model;
  bool json;
};

std::string PathOf(const std::string& id, const char* action = "") {
  return fmt::format("{}/{}{}", kAll, UrlEncode(id), action);
}

AdminRequest RequestOf(const Task& task, std::string method, std::string path) {
  AdminRequest request{.method = std::move(method), .path = std::move(path)};
  if (!task.model.empty()) request.query.emplace_back("model", task.model);
  if (!task.options.tenant.empty()) request.query.emplace_back("tenant", task.options.tenant);
  return request;
}

// The service knows nothing of this program's options.
int FailWithAdvice(const Error& error) {
  std::string advice;
  if (error.param == "tenant") advice = " Name it with --tenant.";
  if (error.param == "id" && error.code == ErrorCode::invalid_request)
    advice = " Give it another one with --id.";
  if (error.param == "id" && error.code == ErrorCode::not_found)
    advice = " `perdure conversations list` shows those of all models; --model names one.";
  return Fail(error.message + advice);
}

void Tell(const Task& task, const Json& answer, const std::string& text) {
  fmt::print("{}", task.json ? DumpJson(answer) + "\n" : text);
}

// --- Of all models -----------------------------------------------------------------------------

// Who is asked: the model that is named, or all that answer. `others` are told on stderr.
Result<std::vector<std::string>> ModelsOf(const Task& task, std::vector<std::string>* others) {
  if (!task.model.empty()) return std::vector<std::string>{task.model};
  ASSIGN_OR_RETURN(auto models, task.client.AskForModels());
  if (models.ready.empty())
    return Err(ErrorCode::io_error,
               "no model is loaded: name one with --model, and it is loaded for this");
  for (const std::string& other : models.others)
    fmt::print(stderr, "perdure: {} is not loaded, and not looked at: --model names it\n", other);
  *others = std::move(models.others);
  return std::move(models.ready);
}

struct Found {
  std::vector<Json> conversations;  // newest first
  bool has_more = false;
};
// Up to so many of one model's, page by page.
Result<Found> Find(const Task& task, const std::string& model, size_t limit) {
  Found found;
  std::set<std::pair<std::string, std::string>> known;  // one may be used while pages are asked for
  for (bool is_new = true; is_new;) {
    AdminRequest request = RequestOf({task.client, task.options, model, task.json}, "GET", kAll);
    const size_t wanted =
        std::min<size_t>(limit - found.conversations.size(), limits::kConversationsListedMax);
    request.query.emplace_back("limit", std::to_string(wanted));
    if (!task.options.user.empty()) request.query.emplace_back("user", task.options.user);
    if (!found.conversations.empty()) {
      request.query.emplace_back("after", TextOf(found.conversations.back(), "id"));
      request.query.emplace_back("after_tenant", TextOf(found.conversations.back(), "tenant"));
    }
    ASSIGN_OR_RETURN(const Json page, task.client.Ask(request));
    is_new = false;
    for (const Json& each : List(page, "data")) {
      if (!known.emplace(TextOf(each, "tenant"), TextOf(each, "id")).second) continue;
      is_new = true;
      found.conversations.push_back(each);
      found.conversations.back()["model"] = model;
    }
    found.has_more = IsTrue(page, "has_more");
    if (!found.has_more || found.conversations.size() >= limit) break;
  }
  return found;
}

void SortNewestFirst(std::vector<Json>* all) {
  std::ranges::stable_sort(*all, [](const Json& a, const Json& b) {
    return Number(b, "last_used_at") < Number(a, "last_used_at");
  });
}

int ListAll(const Task& task, bool of_tenants) {
  std::vector<std::string> others;
  const auto models = ModelsOf(task, &others);
  if (!models) return Fail(models.error().message);
  const auto limit = static_cast<size_t>(task.options.limit);
  std::vector<Json> all;
  int code = protocol::kExitOk;
  bool has_more = false;
  for (const std::string& model : *models) {
    Result<Found> found = Found{};
    if (of_tenants) {
      AdminRequest request{.path = "/admin/tenants", .query = {{"model", model}}};
      auto answer = task.client.Ask(request);
      if (!answer) found = Err(answer.error());
      for (const Json& each : answer ? List(*answer, "data") : Json::array()) {
        found->conversations.push_back(each);
        found->conversations.back()["model"] = model;
      }
    } else {
      found = Find(task, model, limit);
    }
    if (!found) {
      code = Fail(fmt::format("{}: {}", model, found.error().message));
      continue;
    }
    has_more = has_more || found->has_more;
    std::ranges::move(found->conversations, std::back_inserter(all));
  }
  SortNewestFirst(&all);
  if (!of_tenants && all.size() > limit) {
    all.resize(limit);
    has_more = true;
  }
  if (code != protocol::kExitOk && all.empty()) return code;
  Json list = {{"object", "list"}, {"data", std::move(all)}};
  if (!of_tenants) list["has_more"] = has_more;
  list["models_not_ready"] = others;
  Tell(task, list, of_tenants ? FormatTenants(list) : FormatConversations(list));
  return code;
}

// --- Deletion ----------------------------------------------------------------------------------

int RefuseToDelete(size_t count, const std::string& whose) {
  fmt::print(stderr, "perdure: This deletes {} conversations{}: add --yes if they are meant.\n",
             Grouped(count), whose);
  return protocol::kExitUsage;
}

// What each request deletes; what is said of its failure begins as told.
int Delete(const Task& task, const std::vector<std::pair<std::string, AdminRequest>>& requests) {
  Json ids = Json::array();
  int code = protocol::kExitOk;
  for (const auto& [beginning, request] : requests) {
    auto answer = task.client.Ask(request);
    if (!answer) {
      answer.error().message.insert(0, beginning);
      code = FailWithAdvice(answer.error());
      continue;
    }
    for (const Json& id : List(*answer, "ids")) ids.push_back(id);
  }
  const Json told = {
      {"object", "conversation.deleted"}, {"deleted", code == protocol::kExitOk}, {"ids", ids}};
  Tell(task, told,
       fmt::format("{} conversation{} deleted\n", Grouped(ids.size()), ids.size() == 1 ? "" : "s"));
  return code;
}

int DeleteByName(const Task& task) {
  const auto& ids = task.options.ids;
  if (ids.size() > 1 && !task.options.yes) return RefuseToDelete(ids.size(), "");
  std::vector<std::pair<std::string, AdminRequest>> requests;
  for (const std::string& id : ids)
    requests.emplace_back("", RequestOf(task, "DELETE", PathOf(id)));
  return Delete(task, requests);
}

int DeleteMany(const Task& task) {
  const ConversationsOptions& options = task.options;
  std::vector<std::string> others;
  const auto models = ModelsOf(task, &others);
  if (!models) return Fail(models.error().message);
  if (!options.yes) {
    size_t count = 0;
    for (const std::string& model : *models) {
      const auto found = Find(task, model, SIZE_MAX);
      if (!found) return Fail(fmt::format("{}: {}", model, found.error().message));
      count += found->conversations.size();
    }
    if (count > 1) {
      std::string whose;
      if (!options.user.empty()) whose += " of user " + Printable(options.user);
      if (!options.tenant.empty()) whose += " of tenant " + options.tenant;
      if (options.all) whose += " of all tenants";
      return RefuseToDelete(count, fmt::format("{} in {}", whose, fmt::join(*models, ", ")));
    }
  }
  std::vector<std::pair<std::string, AdminRequest>> requests;
  for (const std::string& model : *models) {
    AdminRequest request = RequestOf({task.client, options, model, task.json}, "DELETE", kAll);
    if (!options.user.empty()) request.query.emplace_back("user", options.user);
    if (options.all) request.query.emplace_back("all", "true");
    requests.emplace_back(model + ": ", std::move(request));
  }
  const int code = Delete(task, requests);
  if (others.empty()) return code;
  return Fail(fmt::format("Nothing was deleted of {}, which is not loaded: name it with --model.",
                          fmt::join(others, ", ")));
}

// --- One conversation --------------------------------------------------------------------------

int Show(const Task& task) {
  AdminRequest request = RequestOf(task, "GET", PathOf(task.options.ids[0]));
  if (task.options.turn > 0) request.query.emplace_back("turn", std::to_string(task.options.turn));
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, FormatConversation(*answer));
  return protocol::kExitOk;
}

int Change(const Task& task, const char* action) {
  AdminRequest request = RequestOf(task, "POST", PathOf(task.options.ids[0], action));
  Json body = Json::object();
  if (task.options.turn > 0) body["turn"] = task.options.turn;
  if (!task.options.new_id.empty()) body["id"] = task.options.new_id;
  request.body = DumpJson(body);
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, Summary(*answer) + "\n");
  return protocol::kExitOk;
}

int ExportFile(const Task& task, OutputFile* file) {
  AdminRequest request = RequestOf(task, "GET", PathOf(task.options.ids[0], "/export"));
  request.query.emplace_back("kv", "true");
  Status written;
  request.on_data = [&](std::string_view piece) {
    written = file->Write(piece);
    return written.has_value();
  };
  const auto answer = task.client.AskForText(request);
  if (!written) return Fail(written.error().message);
  return answer ? protocol::kExitOk : FailWithAdvice(answer.error());
}

int ExportDocument(const Task& task, OutputFile* file) {
  AdminRequest request = RequestOf(task, "GET", PathOf(task.options.ids[0]));
  request.query.emplace_back("tokens", "true");
  const auto text = task.client.AskForText(request);
  if (!text) return FailWithAdvice(text.error());
  for (const std::string& piece : {*text, std::string("\n")})
    if (const Status status = file->Write(piece); !status) return Fail(status.error().message);
  return protocol::kExitOk;
}

int Export(const Task& task) {
  if (task.options.kv && task.options.file == "-" && isatty(STDOUT_FILENO) == 1)
    return Fail("a file with KV is nothing for a terminal: name one with -o");
  // Before anything is asked for: there may be such a file.
  auto file = OutputFile::Create(task.options.file, task.options.force);
  if (!file) return Fail(file.error().message);
  const int code = task.options.kv ? ExportFile(task, &*file) : ExportDocument(task, &*file);
  if (code != protocol::kExitOk) return code;
  if (const Status status = file->Finish(); !status) return Fail(status.error().message);
  return protocol::kExitOk;
}

Result<std::string> ReadDocument(const std::string& file) {
  if (file != "-") return ReadFile(file, limits::kFrameBytesMax);
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrFromErrno("cannot read stdin");
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > limits::kFrameBytesMax)
      return Err(ErrorCode::io_error,
                 fmt::format("stdin is larger than the {} bytes allowed", limits::kFrameBytesMax));
  }
}

// A file with KV, to be sent as it is; none where it is a document.
UniqueFd OpenConversationFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char first = 0;
  if (path == "-" || !fd || pread(fd.get(), &first, 1, 0) != 1 || first == '{' || first <= ' ')
    return {};
  return fd;
}

int ImportFile(const Task& task, const UniqueFd& file) {
  AdminRequest request = RequestOf(task, "POST", std::string(kAll) + "/import");
  if (!task.options.new_id.empty()) request.query.emplace_back("id", task.options.new_id);
  request.body_fd = file.get();
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, Summary(*answer) + "\n");
  return protocol::kExitOk;
}

int Import(const Task& task) {
  if (const UniqueFd file = OpenConversationFile(task.options.file)) return ImportFile(task, file);
  const auto document = ReadDocument(task.options.file);
  if (!document) return Fail(document.error().message);
  if (document->empty())
    return Fail(task.options.file + " is empty: `perdure conversations export` makes such a file");
  AdminRequest request = RequestOf(task, "POST", kAll);
  if (!task.options.new_id.empty()) request.query.emplace_back("id", task.options.new_id);
  request.body = *document;
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, Summary(*answer) + "\n");
  return protocol::kExitOk;
}

// --- What is kept by name ----------------------------------------------------------------------

int Save(const Task& task) {
  AdminRequest request = RequestOf(task, "POST", PathOf(task.options.ids[0], "/save"));
  request.body = DumpJson(
      {{"name", task.options.name}, {"kv", task.options.kv}, {"overwrite", task.options.force}});
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer,
       fmt::format("{}: {}, {} tokens\n", Printable(task.options.name),
                   Bytes(Count(*answer, "bytes")), Grouped(Count(*answer, "tokens"))));
  return protocol::kExitOk;
}

int LoadSaved(const Task& task) {
  AdminRequest request = RequestOf(task, "POST", std::string(kAll) + "/load");
  Json body = {{"name", task.options.name}};
  if (!task.options.new_id.empty()) body["id"] = task.options.new_id;
  request.body = DumpJson(body);
  const auto answer = task.client.Ask(request);
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, Summary(*answer) + "\n");
  return protocol::kExitOk;
}

int ListSaved(const Task& task) {
  const auto answer = task.client.Ask(RequestOf(task, "GET", "/admin/saved"));
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, FormatSaved(*answer));
  return protocol::kExitOk;
}

int DeleteSaved(const Task& task) {
  const auto answer =
      task.client.Ask(RequestOf(task, "DELETE", "/admin/saved/" + UrlEncode(task.options.name)));
  if (!answer) return FailWithAdvice(answer.error());
  Tell(task, *answer, Printable(task.options.name) + " deleted\n");
  return protocol::kExitOk;
}

}  // namespace

int RunConversations(const std::filesystem::path& runtime_dir, const ConversationsOptions& options,
                     const std::string& model, bool json) {
  const auto client = AdminClient::Connect(runtime_dir);
  if (!client) return Fail(client.error().message);
  const Task task{*client, options, model, json};
  const std::string& operation = options.operation;
  if (operation == "list") return ListAll(task, false);
  if (operation == "tenants") return ListAll(task, true);
  if (operation == "show") return Show(task);
  if (operation == "delete") return options.ids.empty() ? DeleteMany(task) : DeleteByName(task);
  if (operation == "fork") return Change(task, "/fork");
  if (operation == "rewind") return Change(task, "/rewind");
  if (operation == "save") return Save(task);
  if (operation == "load") return LoadSaved(task);
  if (operation == "saved") return ListSaved(task);
  if (operation == "delete-saved") return DeleteSaved(task);
  return operation == "export" ? Export(task) : Import(task);
}

}  // namespace perdure::cli
