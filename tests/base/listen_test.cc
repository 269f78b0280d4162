#include "base/listen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/unique_fd.h"
#include "tests/base/temp_folder.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(Listen, TakesAFreePortAndSaysWhich) {
  const auto first = ListenTcp("127.0.0.1", 0);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  EXPECT_GT(first->port, 0);
  EXPECT_EQ(first->Url(), "http://127.0.0.1:" + std::to_string(first->port));
  const auto second = ListenTcp("127.0.0.1", first->port);
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, HasSubstr("another program has that port"));
  const auto named = ListenTcp("localhost", 0);
  ASSERT_TRUE(named.has_value()) << named.error().message;
  EXPECT_FALSE(ListenTcp("203.0.113.77", 0).has_value());
  EXPECT_FALSE(ListenTcp("no such host", 0).has_value());
}

TEST(Listen, UrlsOfIpv6HaveBrackets) {
  Listener listener;
  listener.address = "::1";
  listener.port = 5;
  EXPECT_EQ(listener.Url(), "http://[::1]:5");
}

TEST(Listen, AControlSocketReplacesAStaleOne) {
  const TempFolder folder;
  ASSERT_TRUE(ListenUnix(folder.path() / "s").has_value());
  ASSERT_TRUE(ListenUnix(folder.path() / "s").has_value());
  EXPECT_THAT(ListenUnix(folder.path() / std::string(200, 'x')).error().message,
              HasSubstr("too long"));
}

}  // namespace
}  // namespace perdure
