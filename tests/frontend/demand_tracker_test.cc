#include "frontend/demand_tracker.h"

#include <gtest/gtest.h>

namespace perdure::frontend {
namespace {

TEST(DemandTracker, TellsOfWhatIsAskedAndWhatWasTouched) {
  DemandTracker tracker;
  EXPECT_FALSE(tracker.changed());
  tracker.Touch("a");
  tracker.OnEnd("c", 60);
  tracker.OnEnd("c", std::nullopt);  // says nothing: what was said holds
  EXPECT_TRUE(tracker.changed());
  DemandTracker::Count count;
  count.Waiting("a", 5);
  count.Waiting("a", 9);
  count.Running("a");
  count.Running("b");
  const protocol::Demand demand = tracker.Take(std::move(count));
  ASSERT_EQ(demand.models.size(), 3u);
  EXPECT_EQ(demand.models[0].model, "a");
  EXPECT_EQ(demand.models[0].waiting, 2u);
  EXPECT_EQ(demand.models[0].running, 1u);
  EXPECT_EQ(demand.models[0].longest_wait_ms, 9);
  EXPECT_FALSE(demand.models[0].keep_alive_s);
  EXPECT_EQ(demand.models[1].running, 1u);
  EXPECT_EQ(demand.models[2].model, "c");
  EXPECT_EQ(demand.models[2].keep_alive_s, 60);
  EXPECT_FALSE(tracker.changed());
}

}  // namespace
}  // namespace perdure::frontend
