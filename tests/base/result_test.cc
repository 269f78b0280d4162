#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>

#include "base/check.h"
#include "base/random.h"

namespace perdure {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return Err(ErrorCode::invalid_request, "odd", "n");
  return n / 2;
}

Result<int> Quarter(int n) {
  ASSIGN_OR_RETURN(const int half, Half(n));
  RETURN_IF_ERROR(Half(half));
  return half / 2;
}

TEST(Result, PassesErrorsUp) {
  EXPECT_EQ(*Quarter(8), 2);
  const auto error = Quarter(6);
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().code, ErrorCode::invalid_request);
  EXPECT_EQ(error.error().param, "n");
  EXPECT_EQ(ErrWithContext("a.json", Half(1).error()).value().message, "a.json: odd");
}

TEST(Result, MovesValues) {
  const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(3); };
  const auto use = [&]() -> Result<int> {
    ASSIGN_OR_RETURN(std::unique_ptr<int> p, make());
    return *p;
  };
  EXPECT_EQ(*use(), 3);
}

TEST(Errors, TheTableIsSound) {
  std::set<int> numbers;
  std::set<std::string> names;
#define PERDURE_ERROR(error_name, wire, http, type, retryable) \
  EXPECT_TRUE(numbers.insert(wire).second) << #error_name;     \
  EXPECT_TRUE(names.insert(#error_name).second);               \
  EXPECT_EQ(ErrorCodeFromWire(wire), ErrorCode::error_name);   \
  EXPECT_EQ(InfoOf(ErrorCode::error_name).name, #error_name);  \
  EXPECT_TRUE(http >= 400 && http < 600) << #error_name;
#include "base/errors.inc"
#undef PERDURE_ERROR
  EXPECT_EQ(ErrorCodeFromWire(65535), ErrorCode::internal);
}

TEST(Errors, FromErrno) {
  errno = ENOENT;
  EXPECT_EQ(ErrFromErrno("x").value().message, "x: No such file or directory");
}

TEST(CheckDeathTest, NamesConditionAndPlace) {
  EXPECT_DEATH(CHECK(1 + 1 == 3), "result_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3");
  EXPECT_DEATH(CHECK_MSG(false, "because"), "check failed: false: because");
}

TEST(Random, IdsDiffer) {
  const std::string a = RandomId("x_"), b = RandomId("x_");
  EXPECT_EQ(a.size(), 26u);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace perdure
