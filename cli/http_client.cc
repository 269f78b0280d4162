#include "cli/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

namespace perdure::cli {
namespace {

struct Transfer {
  const HttpRequest* request;
  CURL* curl;
  HttpResponse response;
};

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const std::string_view piece(data, size * count);
  long status = 0;
  curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
  if (transfer->request->on_data && status == 200)
    return transfer->request->on_data(piece) ? piece.size() : 0;
  transfer->response.body.append(piece);
  return piece.size();
}

size_t OnRead(char* to, size_t size, size_t count, void* context) {
  const ssize_t got = read(*static_cast<const int*>(context), to, size * count);
  return got < 0 ? CURL_READFUNC_ABORT : static_cast<size_t>(got);
}

}  // namespace

Result<HttpResponse> Perform(const HttpRequest& request) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (initialized != CURLE_OK || !curl) return Err(ErrorCode::io_error, "libcurl cannot start");

  Transfer transfer{&request, curl.get(), {}};
  curl_slist* list = nullptr;
  struct stat st {};
  const bool has_file = request.body_fd >= 0;
  if (has_file && fstat(request.body_fd, &st) != 0) return ErrFromErrno("cannot read the file");
  if (!request.body.empty() || has_file)
    list = curl_slist_append(list, ("Content-Type: " + request.content_type).c_str());
  if (!request.api_key.empty())
    list = curl_slist_append(list, ("Authorization: Bearer " + request.api_key).c_str());
  for (const std::string& header : request.headers) list = curl_slist_append(list, header.c_str());
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list,
                                                                            curl_slist_free_all);
  char error[CURL_ERROR_SIZE] = {};
  curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROXY, "*");  // never through somebody else
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, static_cast<long>(request.timeout_s));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  if (has_file) {
    curl_easy_setopt(curl.get(), CURLOPT_POST, 1L);
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(st.st_size));
    curl_easy_setopt(curl.get(), CURLOPT_READFUNCTION, OnRead);
    curl_easy_setopt(curl.get(), CURLOPT_READDATA, const_cast<int*>(&request.body_fd));
  }
  if (!request.method.empty())
    curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (!request.body.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, request.body.data());
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
  }
  if (const CURLcode code = curl_easy_perform(curl.get()); code != CURLE_OK)
    return Err(ErrorCode::io_error,
               fmt::format("{}: {}", request.url, error[0] ? error : curl_easy_strerror(code)));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  transfer.response.status = static_cast<int>(status);
  return std::move(transfer.response);
}

}  // namespace perdure::cli
