#include "frontend/access.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace perdure::frontend {
namespace {

protocol::FrontendSettings Bound(const std::string& host, std::vector<std::string> allowed = {},
                                 std::vector<std::string> keys = {}) {
  protocol::FrontendSettings settings;
  settings.host = host;
  settings.allowed_hosts = std::move(allowed);
  settings.api_keys = std::move(keys);
  return settings;
}

HttpRequest Request(std::vector<HttpHeader> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

TEST(Access, ReadsAuthorities) {
  struct Row {
    const char* text;
    const char* host;  // null: none
  };
  for (const Row& row : std::vector<Row>{{"localhost", "localhost"},
                                         {"LocalHost:8000", "localhost"},
                                         {"example.com.", "example.com"},
                                         {" a:1 ", "a"},
                                         {"127.0.0.1:80", "127.0.0.1"},
                                         {"[::1]:8000", "::1"},
                                         {"[::1]", "::1"},
                                         {"", nullptr},
                                         {":80", nullptr},
                                         {"a:b", nullptr},
                                         {"a:123456", nullptr},
                                         {"a:1:2", nullptr},
                                         {"::1", nullptr},
                                         {"[::1", nullptr},
                                         {"[evil]", nullptr},
                                         {"[::1]x", nullptr},
                                         {"user@localhost", nullptr},
                                         {"localhost/evil", nullptr},
                                         {"a b", nullptr}}) {
    const auto host = HostOfAuthority(row.text);
    EXPECT_EQ(host.has_value(), row.host != nullptr) << row.text;
    if (host && row.host) {
      EXPECT_EQ(*host, row.host);
    }
  }
  EXPECT_EQ(HostOfAuthority("a:"), "a");
}

TEST(Access, ChecksTheHost) {
  struct Row {
    protocol::FrontendSettings settings;
    const char* host;
    bool allowed;
  };
  const auto local = Bound("127.0.0.1");
  const auto lan = Bound("192.168.1.5", {"box.lan"});
  const auto open = Bound("0.0.0.0");
  const auto open_key = Bound("::", {}, {"k"});
  for (const Row& row : std::vector<Row>{{local, "localhost:8000", true},
                                         {local, "127.0.0.1", true},
                                         {local, "127.1.2.3", true},
                                         {local, "[::1]:8000", true},
                                         {local, "app.localhost", true},
                                         {local, "evil.com", false},
                                         {local, "localhost.evil.com", false},
                                         {local, "127.0.0.1.evil.com", false},
                                         {local, "192.168.1.5", false},
                                         {local, "0.0.0.0", false},
                                         {lan, "192.168.1.5:8000", true},
                                         {lan, "BOX.lan:8000", true},
                                         {lan, "192.168.1.6", false},
                                         {lan, "other.lan", false},
                                         {open, "192.168.1.5", true},
                                         {open, "[fe80::1]", true},
                                         {open, "evil.com", false},
                                         {open_key, "any.name", true},
                                         {Bound("127.0.0.1", {"*"}), "any.name", true}}) {
    EXPECT_EQ(CheckHost(Request({{"host", row.host}}), row.settings).has_value(), row.allowed)
        << row.host << " at " << row.settings.host;
  }
  EXPECT_EQ(CheckHost(Request({}), local).error().code, ErrorCode::invalid_request);
  HttpRequest old = Request({});
  old.version_minor = 0;
  EXPECT_TRUE(CheckHost(old, local));
  EXPECT_EQ(CheckHost(Request({{"host", "evil.com"}}), local).error().code, ErrorCode::forbidden);
}

TEST(Access, ChecksTheOrigin) {
  struct Row {
    const char* origin;
    bool allowed;
  };
  const auto settings = Bound("127.0.0.1", {"ui.example"});
  for (const Row& row : std::vector<Row>{{"http://localhost:3000", true},
                                         {"https://127.0.0.1", true},
                                         {"https://ui.example", true},
                                         {"https://UI.example:8443", true},
                                         {"https://evil.example", false},
                                         {"https://ui.example.evil", false},
                                         {"null", false},
                                         {"", false},
                                         {"file://", false},
                                         {"chrome-extension://abc", false},
                                         {"http://", false},
                                         {"http://192.168.1.5", false}}) {
    EXPECT_EQ(
        CheckOrigin(Request({{"host", "localhost"}, {"origin", row.origin}}), settings).has_value(),
        row.allowed)
        << row.origin;
  }
  EXPECT_TRUE(CheckOrigin(Request({}), settings));
  // The service's own pages at an address.
  EXPECT_TRUE(CheckOrigin(Request({{"host", "10.0.0.1:80"}, {"origin", "http://10.0.0.1:80"}}),
                          Bound("0.0.0.0")));
  // A rebound name is the same in both, and still refused.
  EXPECT_FALSE(CheckOrigin(Request({{"host", "evil.com"}, {"origin", "http://evil.com"}}),
                           Bound("::", {}, {"k"})));
}

TEST(Access, ChecksTheKey) {
  const auto settings = Bound("127.0.0.1", {}, {"first-key", "second"});
  struct Row {
    const char* value;
    bool allowed;
  };
  for (const Row& row : std::vector<Row>{{"Bearer first-key", true},
                                         {"bearer second", true},
                                         {"BEARER   second ", true},
                                         {"Bearer", false},
                                         {"Bearer ", false},
                                         {"first-key", false},
                                         {"Basic first-key", false},
                                         {"Bearer first-key2", false},
                                         {"Bearer first-ke", false},
                                         {"Bearer secondsecond", false},
                                         {"Bearer SECOND", false},
                                         {"", false}}) {
    const auto status = CheckKey(Request({{"authorization", row.value}}), settings);
    EXPECT_EQ(status.has_value(), row.allowed) << row.value;
    if (!status) {
      EXPECT_EQ(status.error().code, ErrorCode::unauthorized);
    }
  }
  EXPECT_FALSE(CheckKey(Request({}), settings));
  EXPECT_TRUE(CheckKey(Request({}), Bound("127.0.0.1")));
}

// What CheckAdmin says of that authorization header; empty: none is sent.
std::string Admin(const protocol::FrontendSettings& settings, const std::string& authorization) {
  const HttpRequest request =
      authorization.empty() ? Request({}) : Request({{"authorization", authorization}});
  const Status status = CheckAdmin(request, settings);
  return status ? "passes" : std::string(InfoOf(status.error().code).name);
}

TEST(Access, AnAdminKeyIsNoApiKey) {
  auto settings = Bound("127.0.0.1", {}, {"api"});
  settings.admin_keys = {"first-admin", "second"};
  EXPECT_EQ(Admin(settings, "Bearer first-admin"), "passes");
  EXPECT_EQ(Admin(settings, "bearer second"), "passes");
  EXPECT_EQ(Admin(settings, ""), "unauthorized");
  EXPECT_EQ(Admin(settings, "Basic second"), "unauthorized");
  EXPECT_EQ(Admin(settings, "Bearer"), "unauthorized");
  for (const char* key : {"api", "first", "first-admin2", "SECOND", "secondsecond"})
    EXPECT_EQ(Admin(settings, "Bearer " + std::string(key)), "forbidden") << key;
  EXPECT_FALSE(CheckKey(Request({{"authorization", "Bearer second"}}), settings))
      << "an admin key is for /admin alone";
}

TEST(Access, TheServicesOwnTokenPassesEverywhere) {
  for (const char* host : {"127.0.0.1", "0.0.0.0", "192.168.1.5"}) {
    auto settings = Bound(host, {}, {"api"});
    settings.admin_token = "admin_0123";
    for (const std::vector<std::string>& keys : {std::vector<std::string>{}, {"key"}}) {
      settings.admin_keys = keys;
      EXPECT_EQ(Admin(settings, "Bearer admin_0123"), "passes") << host;
      EXPECT_EQ(Admin(settings, "Bearer admin_0124"), "forbidden") << host;
      EXPECT_EQ(Admin(settings, ""), "unauthorized") << host;
    }
  }
}

TEST(Access, AdminIsOpenOnlyToThisMachineAndWhereNobodyNeedsAKey) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"}) {
    auto settings = Bound(host);
    settings.admin_token = "token";
    EXPECT_EQ(Admin(settings, ""), "passes") << host;
    EXPECT_EQ(Admin(settings, "Bearer unknown"), "passes") << host;
    settings.api_keys = {"k"};
    EXPECT_EQ(Admin(settings, ""), "unauthorized") << host;
    EXPECT_EQ(Admin(settings, "Bearer k"), "forbidden") << host;
    settings.api_keys.clear();
    settings.admin_keys = {"k"};
    EXPECT_EQ(Admin(settings, ""), "unauthorized") << host;
  }
  for (const char* host : {"0.0.0.0", "::", "192.168.1.5", "box.lan"})
    EXPECT_EQ(Admin(Bound(host), ""), "unauthorized") << host;
}

TEST(Access, ARefusedAdminIsToldWhatToDo) {
  const Status status = CheckAdmin(Request({}), Bound("0.0.0.0"));
  ASSERT_FALSE(status);
  for (const char* step :
       {"server.admin_keys", "Authorization: Bearer", "perdure cache", "perdure conversations"})
    EXPECT_NE(status.error().message.find(step), std::string::npos) << step;
}

TEST(Access, EachKeyIsATenant) {
  const auto settings = Bound("127.0.0.1", {}, {"first-key", "second"});
  const auto tenant = [&settings](const char* authorization) {
    return TenantOf(Request({{"authorization", authorization}}), settings);
  };
  EXPECT_EQ(tenant("Bearer first-key"), tenant("BEARER   first-key "));
  EXPECT_NE(tenant("Bearer first-key"), tenant("Bearer second"));
  EXPECT_FALSE(tenant("Bearer first-key").empty());
  EXPECT_EQ(tenant("Bearer first-key").find("first"), std::string::npos);
}

TEST(Access, WithoutKeysAllAreOneTenant) {
  EXPECT_EQ(TenantOf(Request({}), Bound("127.0.0.1")), "");
  EXPECT_EQ(TenantOf(Request({{"authorization", "Bearer sk-any"}}), Bound("127.0.0.1")), "");
}

TEST(Access, ClientsAreToldApartByKeyOrByMachine) {
  const auto with_keys = Bound("0.0.0.0", {}, {"a", "b"});
  const auto client = [](const char* key, const char* peer,
                         const protocol::FrontendSettings& settings) {
    HttpRequest request = Request({{"authorization", std::string("Bearer ") + key}});
    request.peer = PeerName(peer);
    return ClientOf(request, settings);
  };
  EXPECT_EQ(client("a", "10.0.0.1", with_keys), client("a", "10.0.0.2", with_keys));
  EXPECT_NE(client("a", "10.0.0.1", with_keys), client("b", "10.0.0.1", with_keys));
  const auto open = Bound("0.0.0.0");
  EXPECT_EQ(client("a", "10.0.0.1", open), client("b", "10.0.0.1", open));
  EXPECT_NE(client("a", "10.0.0.1", open), client("a", "10.0.0.2", open));
  EXPECT_EQ(client("a", "127.0.0.1", open), client("a", "::1", open));
}

TEST(Access, AMachineHasOneNameWhateverItsAddresses) {
  EXPECT_EQ(PeerName("192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(PeerName("::ffff:192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(PeerName("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
  EXPECT_EQ(PeerName("2001:db8:1:2::1"), PeerName("2001:db8:1:2:ffff::"));
  EXPECT_NE(PeerName("2001:db8:1:2::1"), PeerName("2001:db8:1:3::1"));
  EXPECT_EQ(PeerName("fe80::1%eth0"), "fe80::/64");
  for (const char* local : {"127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"})
    EXPECT_EQ(PeerName(local), "loopback") << local;
}

// --- Keys with settings --------------------------------------------------------------------------

TEST(Access, AKeyMayHaveItsTurnsNotStored) {
  auto settings = Bound("127.0.0.1", {}, {"a", "b", "c"});
  settings.key_settings = {{"a", 0, false}, {"b", 7, true}};
  const auto stores = [&](const char* authorization) {
    return StoresByDefault(Request({{"authorization", authorization}}), settings);
  };
  EXPECT_FALSE(stores("Bearer a"));
  EXPECT_FALSE(stores("bearer  a "));
  EXPECT_TRUE(stores("Bearer b"));
  EXPECT_TRUE(stores("Bearer c"));
  EXPECT_TRUE(StoresByDefault(Request({}), Bound("127.0.0.1")));
}

TEST(Access, WorkersAreToldOfTenantsNotOfKeys) {
  auto settings = Bound("127.0.0.1", {}, {"first-key", "second", "third"});
  settings.key_settings = {{"first-key", 7, true}, {"second", 0, false}, {"third", 365, false}};
  const auto tenants = TenantSettingsOf(settings);
  ASSERT_EQ(tenants.retentions.size(), 2u) << "the others' are as the model has it";
  const auto tenant = [&](const char* authorization) {
    return TenantOf(Request({{"authorization", authorization}}), settings);
  };
  EXPECT_EQ(tenants.retentions[0].tenant, tenant("Bearer first-key"));
  EXPECT_EQ(tenants.retentions[0].retention_days, 7);
  EXPECT_EQ(tenants.retentions[1].tenant, tenant("Bearer third"));
  EXPECT_EQ(tenants.retentions[1].retention_days, 365);
}

}  // namespace
}  // namespace perdure::frontend
