#include "cli/admin_client.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/control_client.h"
#include "cli/http_client.h"
#include "cli/json_members.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {

std::string UrlEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Result<AdminClient> AdminClient::Connect(const std::filesystem::path& runtime_dir) {
  AdminClient client(runtime_dir);
  ASSIGN_OR_RETURN(const Json admin, AskSupervisor(runtime_dir, "admin"));
  client.url_ = TextOf(admin, "url");
  client.key_ = TextOf(admin, "admin_token");
  return client;
}

Result<std::string> AdminClient::AskForText(const AdminRequest& request) const {
  HttpRequest http;
  http.url = url_ + request.path;
  const char* separator = "?";
  for (const auto& [name, value] : request.query) {
    http.url += fmt::format("{}{}={}", separator, name, UrlEncode(value));
    separator = "&";
  }
  http.method = request.method;
  http.body = request.body;
  http.body_fd = request.body_fd;
  if (request.body_fd >= 0) http.content_type = "application/octet-stream";
  http.on_data = request.on_data;
  http.api_key = key_;
  ASSIGN_OR_RETURN(HttpResponse response, Perform(http));
  if (response.status == 200) return std::move(response.body);
  const auto answer = ParseJson(response.body, "the service's answer", ErrorCode::io_error);
  if (!answer || Member(*answer, "error").empty())
    return Err(ErrorCode::io_error,
               fmt::format("the service answered with status {}", response.status));
  const Json& error = Member(*answer, "error");
  const std::string param = TextOf(error, "param");
  return Err(response.status == 404   ? ErrorCode::not_found
             : response.status == 400 ? ErrorCode::invalid_request
                                      : ErrorCode::io_error,
             TextOf(error, "message"), param == "-" ? "" : param);
}

Result<Json> AdminClient::Ask(const AdminRequest& request) const {
  ASSIGN_OR_RETURN(const std::string text, AskForText(request));
  return ParseJson(text, "the service's answer", ErrorCode::io_error);
}

Result<AdminClient::Models> AdminClient::AskForModels() const {
  ASSIGN_OR_RETURN(const Json ps, AskSupervisor(runtime_dir_, "ps"));
  Models models;
  for (const Json& model : List(ps, "models"))
    (TextOf(model, "state") == "ready" ? models.ready : models.others)
        .push_back(TextOf(model, "name"));
  return models;
}

int Fail(std::string_view message) {
  fmt::print(stderr, "perdure: {}\n", message);
  return protocol::kExitSystem;
}

}  // namespace perdure::cli
