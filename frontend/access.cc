#include "frontend/access.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

using protocol::FrontendSettings;

bool IsWildcard(std::string_view host) { return host == "0.0.0.0" || host == "::"; }

bool IsAllowedName(std::string_view host, const FrontendSettings& settings) {
  if (IsLoopbackName(host)) return true;
  if (!IsWildcard(settings.host) && host == AsciiLower(settings.host)) return true;
  return std::any_of(
      settings.allowed_hosts.begin(), settings.allowed_hosts.end(),
      [host](const std::string& allowed) { return allowed == "*" || AsciiLower(allowed) == host; });
}

bool IsHostAllowed(std::string_view host, const FrontendSettings& settings) {
  if (IsAllowedName(host, settings)) return true;
  if (!IsWildcard(settings.host)) return false;
  // Rebinding needs a name of the attacker's; and where a key is asked for, a page has none.
  return !settings.api_keys.empty() || IsIpLiteral(host);
}

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const unsigned char other = b.empty() ? 0 : static_cast<unsigned char>(b[i % b.size()]);
    difference |= static_cast<unsigned char>(a[i]) ^ other;
  }
  return difference == 0;
}

std::string TenantOfKey(std::string_view key) { return fmt::format("{:016x}", Hash64(key)); }

// What follows "Bearer"; nothing where that is not what the header says.
std::optional<std::string_view> BearerOf(const HttpRequest& request) {
  const std::string* field = request.Find("authorization");
  if (!field) return std::nullopt;
  const std::string_view value = TrimBlanks(*field);
  const size_t blank = value.find(' ');
  if (blank == std::string_view::npos || AsciiLower(value.substr(0, blank)) != "bearer")
    return std::nullopt;
  return TrimBlanks(value.substr(blank + 1));
}

}  // namespace

std::optional<std::string> HostOfAuthority(std::string_view authority) {
  authority = TrimBlanks(authority);
  std::string_view host = authority, port;
  if (!authority.empty() && authority.front() == '[') {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    in6_addr address;
    if (inet_pton(AF_INET6, std::string(host).c_str(), &address) != 1) return std::nullopt;
  } else if (const size_t colon = authority.find(':'); colon != std::string_view::npos) {
    host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (!port.empty()) {
    if (port.front() != ':' || port.size() > 6) return std::nullopt;
    for (char c : port.substr(1))
      if (c < '0' || c > '9') return std::nullopt;
  }
  if (host.empty() || host.find_first_of("/\\@?# \t") != std::string_view::npos)
    return std::nullopt;
  std::string out = AsciiLower(host);
  if (out.size() > 1 && out.back() == '.') out.pop_back();
  return out;
}

bool IsIpLiteral(std::string_view host) {
  const std::string text(host);
  in_addr v4;
  in6_addr v6;
  return inet_pton(AF_INET, text.c_str(), &v4) == 1 || inet_pton(AF_INET6, text.c_str(), &v6) == 1;
}

bool IsLoopbackName(std::string_view host) {
  if (host == "localhost" || host.ends_with(".localhost") || host == "::1") return true;
  in_addr v4;
  return inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

Status CheckHost(const HttpRequest& request, const FrontendSettings& settings) {
  const std::string* field = request.Find("host");
  if (!field) {
    if (request.version_minor == 0) return {};
    return Err(ErrorCode::invalid_request, "The request has no Host header.");
  }
  const std::optional<std::string> host = HostOfAuthority(*field);
  if (!host) return Err(ErrorCode::invalid_request, "The request's Host header is malformed.");
  if (IsHostAllowed(*host, settings)) return {};
  return Err(
      ErrorCode::forbidden,
      fmt::format("The host {} is not served here; name it in allowed_hosts if it should be.",
                  Quoted(*host)));
}

Status CheckOrigin(const HttpRequest& request, const FrontendSettings& settings) {
  const std::string* field = request.Find("origin");
  if (!field) return {};
  std::string_view origin = TrimBlanks(*field);
  for (std::string_view scheme : {"http://", "https://"}) {
    if (!origin.starts_with(scheme)) continue;
    const std::optional<std::string> host = HostOfAuthority(origin.substr(scheme.size()));
    if (!host) break;
    if (IsAllowedName(*host, settings)) return {};
    // A page that this service served itself, under an address that CheckHost has passed.
    const std::string* own = request.Find("host");
    if (own && IsIpLiteral(*host) && HostOfAuthority(*own) == host) return {};
    break;
  }
  return Err(ErrorCode::forbidden,
             fmt::format("Pages of the origin {} may not use this service; name its host in "
                         "allowed_hosts if they should.",
                         Quoted(origin)));
}

Status CheckKey(const HttpRequest& request, const FrontendSettings& settings) {
  if (settings.api_keys.empty()) return {};
  if (!request.Find("authorization"))
    return Err(ErrorCode::unauthorized,
               "An API key is required: send the header \"Authorization: Bearer <key>\".");
  const std::optional<std::string_view> given = BearerOf(request);
  bool matches = false;
  for (const std::string& key : settings.api_keys)
    matches |= given && EqualInConstantTime(*given, key);  // all of them, always
  if (matches) return {};
  return Err(ErrorCode::unauthorized, "The API key is not valid.");
}

Status CheckAdmin(const HttpRequest& request, const FrontendSettings& settings) {
  const std::optional<std::string_view> given = BearerOf(request);
  bool matches = false;
  if (!settings.admin_token.empty())
    matches |= given && EqualInConstantTime(*given, settings.admin_token);
  for (const std::string& key : settings.admin_keys)
    matches |= given && EqualInConstantTime(*given, key);
  const bool is_open = settings.admin_keys.empty() && settings.api_keys.empty() &&
                       IsLoopbackName(AsciiLower(settings.host));
  if (matches || is_open) return {};
  return Err(given ? ErrorCode::forbidden : ErrorCode::unauthorized,
             "An admin key is required: set server.admin_keys and send one as \"Authorization: "
             "Bearer <key>\", or use `perdure cache` or `perdure conversations` on the service's "
             "machine.");
}

std::string TenantOf(const HttpRequest& request, const FrontendSettings& settings) {
  if (settings.api_keys.empty()) return {};
  return TenantOfKey(BearerOf(request).value_or(std::string_view()));
}

std::string PeerName(std::string_view address) {
  if (IsLoopbackName(address)) return "loopback";
  in6_addr v6;
  if (inet_pton(AF_INET6, std::string(address.substr(0, address.find('%'))).c_str(), &v6) != 1)
    return std::string(address);
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    char v4[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, v6.s6_addr + 12, v4, sizeof v4);
    return PeerName(v4);
  }
  std::fill(v6.s6_addr + 8, v6.s6_addr + 16, 0);
  char network[INET6_ADDRSTRLEN] = {};
  inet_ntop(AF_INET6, &v6, network, sizeof network);
  return fmt::format("{}/64", network);
}

uint64_t ClientOf(const HttpRequest& request, const FrontendSettings& settings) {
  return Hash64(settings.api_keys.empty() ? "address " + request.peer
                                          : "key " + TenantOf(request, settings));
}

bool StoresByDefault(const HttpRequest& request, const FrontendSettings& settings) {
  const std::string tenant = TenantOf(request, settings);
  return std::ranges::none_of(settings.key_settings, [&](const protocol::ApiKeySettings& each) {
    return !each.store && TenantOfKey(each.key) == tenant;
  });
}

protocol::TenantSettings TenantSettingsOf(const FrontendSettings& settings) {
  protocol::TenantSettings tenants;
  for (const protocol::ApiKeySettings& each : settings.key_settings)
    if (each.retention_days > 0)
      tenants.retentions.push_back({TenantOfKey(each.key), each.retention_days});
  return tenants;
}

}  // namespace perdure::frontend
