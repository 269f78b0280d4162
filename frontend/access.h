// Who may talk to the service: Host and Origin against DNS rebinding and cross-site requests, API
// keys. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "frontend/http_types.h"
#include "protocol/messages.h"

namespace perdure::frontend {

// "host", "host:port" or "[v6]:port" → the lower-case host without brackets and final dot; empty
// where it is none of these.
std::optional<std::string> HostOfAuthority(std::string_view authority);
bool IsIpLiteral(std::string_view host);
bool IsLoopbackName(std::string_view host);

Status CheckHost(const HttpRequest& request, const protocol::FrontendSettings& settings);
Status CheckOrigin(const HttpRequest& request, const protocol::FrontendSettings& settings);
// Compares in time that depends on lengths only.
Status CheckKey(const HttpRequest& request, const protocol::FrontendSettings& settings);
// Whether the request may use /admin: with an admin key, or where clients of this machine alone get
// here and none needs a key.
Status CheckAdmin(const HttpRequest& request, const protocol::FrontendSettings& settings);
// Whose cache a request that CheckKey has passed may use: what is cached for one key is never found
// for another. A name that does not tell the key; empty where no keys are asked for.
std::string TenantOf(const HttpRequest& request, const protocol::FrontendSettings& settings);
// What tells one client's machine from another's, of its address: of IPv6 the network, as one
// machine has all addresses of a /64; all of loopback is this machine.
std::string PeerName(std::string_view address);
// Between whom places are shared: clients are told apart by their keys, or where no keys are asked
// for by the address of their machine.
uint64_t ClientOf(const HttpRequest& request, const protocol::FrontendSettings& settings);
// Whether turns of its key are stored where a request does not say.
bool StoresByDefault(const HttpRequest& request, const protocol::FrontendSettings& settings);
// What workers are to know of keys.
protocol::TenantSettings TenantSettingsOf(const protocol::FrontendSettings& settings);

}  // namespace perdure::frontend
