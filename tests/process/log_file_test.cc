// A log that is rotated while the service runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

std::string Content(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(LogFile, IsOpenedAgainForWhoRotatesIt) {
  Service service;
  const fs::path log = service.folder() / "perdure.log", old = service.folder() / "perdure.log.1";
  service.WriteConfig("[server]\nlog_file = \"" + log.string() + "\"\n");
  service.StartReady();
  EXPECT_THAT(service.Log(), HasSubstr("the log goes to " + log.string()));
  ASSERT_EQ(Chat(service.url(), ChatBody("Hello", {{"max_tokens", 2}})).status, 200);
  ASSERT_TRUE(Eventually([&] { return Content(log).find("frontend[") != std::string::npos; }));
  EXPECT_THAT(Content(log), HasSubstr("worker nano["));

  fs::rename(log, old);
  service.Signal(SIGUSR1);
  ASSERT_TRUE(Eventually([&] { return Content(log).find("SIGUSR1") != std::string::npos; }));
  const std::string before = Content(old);
  ASSERT_EQ(Chat(service.url(), ChatBody("Hello", {{"max_tokens", 3}})).status, 200);
  ASSERT_TRUE(Eventually([&] { return Content(log).find(" + 3 tokens") != std::string::npos; }));
  EXPECT_EQ(Content(old), before);

  // No reason to end: nor for a signal that a worker gets, nor for a folder that is gone.
  const pid_t worker = service.SignalModel("nano", SIGUSR1);
  fs::rename(log, old);
  fs::create_directory(log);
  service.Signal(SIGUSR1);
  ASSERT_TRUE(Eventually(
      [&] { return Content(old).find("the log goes on where it was") != std::string::npos; }));
  EXPECT_EQ(Chat(service.url(), ChatBody("Hello", {{"max_tokens", 2}})).status, 200);
  EXPECT_EQ(service.ModelPid("nano"), worker);

  fs::remove(log);
  service.WriteConfig("[server]\nlog_level = \"debug\"\n");
  service.Signal(SIGHUP);
  ASSERT_TRUE(
      Eventually([&] { return service.Log().find("the log's file") != std::string::npos; }));
  service.Signal(SIGTERM);
  EXPECT_EQ(service.AwaitExit(), 0);
  EXPECT_THAT(service.Log(), HasSubstr("the service has ended"));
}

}  // namespace
}  // namespace perdure::process_tests
