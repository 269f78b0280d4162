// The moment that a rendering takes for now.
#pragma once

#include <cstdint>

namespace perdure::text {

// Handed in, so that a rendering is a function of its inputs. strftime_now shows local time.
struct TemplateTime {
  TemplateTime(int64_t seconds, int offset_s = 0) : unix_time(seconds), utc_offset_s(offset_s) {}
  int64_t unix_time;
  int utc_offset_s;  // how far local time is ahead of UTC
};

}  // namespace perdure::text
