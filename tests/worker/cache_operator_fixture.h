// Commands to a generator's cache, and what it tells of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/worker/cache_fixture.h"
#include "worker/cache_operator.h"

namespace perdure::worker {

using nlohmann::json;  // whatever the order of members

inline constexpr int64_t kSecondUs = 1'000'000;

class CacheOperatorTest : public CacheTest {
 protected:
  protocol::RequestId Order(protocol::CacheOperation operation, bool unused_only = false,
                            int seconds = 0) {
    protocol::CacheCommand command;
    command.rid = ++last_order_;
    command.operation = operation;
    command.unused_only = unused_only;
    command.seconds = seconds;
    generator_->Command(command);
    return command.rid;
  }
  std::vector<json> Told(protocol::RequestId order) const {
    std::vector<json> told;
    for (const protocol::CacheAnswer& answer : sink_.cache_answers)
      if (answer.rid == order) told.push_back(json::parse(answer.json));
    return told;
  }
  json OnlyAnswer(protocol::RequestId order) const {
    const std::vector<json> told = Told(order);
    EXPECT_EQ(told.size(), 1u) << "order " << order;
    return told.empty() ? json() : told[0];
  }
  void RunUpkeep() {
    for (int i = 0; i < 10'000 && generator_->HasUpkeep(); ++i) generator_->Upkeep();
    EXPECT_FALSE(generator_->HasUpkeep());
  }
  json Do(protocol::CacheOperation operation, bool unused_only = false) {
    const auto order = Order(operation, unused_only);
    RunUpkeep();
    return OnlyAnswer(order);
  }
  json Stats() { return Do(protocol::CacheOperation::kStats); }
  // The clock goes on so far, in steps of a second.
  void Wait(int64_t seconds) {
    for (int64_t i = 0; i < seconds; ++i) {
      clock_us += kSecondUs;
      generator_->Tick();
    }
  }

  protocol::Submit AskNamed(const std::string& id, const Ids& prompt, int answer,
                            const CacheChoice& cache = {}) {
    protocol::Submit submit = Ask(prompt, answer, cache);
    submit.request.conversation_id = id;
    return submit;
  }
  uint64_t Slab() const { return store_->memory().geometry().slab_bytes; }
  void Flip(PageIndex page, size_t at) { store_->address(page)[at] ^= std::byte{1}; }
  // Its state is what the next page's first token is computed from.
  void FlipLastState(PageIndex page) { Flip(page, (kPage - 1) * sizeof(uint64_t)); }

  protocol::RequestId last_order_ = 1'000'000;
};

}  // namespace perdure::worker
