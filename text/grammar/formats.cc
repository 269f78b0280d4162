// The formats of JSON Schema as patterns. Each matches a part of what its standard allows: whatever
// is made by it is valid everywhere, and what people write is in it.
#include <fmt/format.h>

#include <array>
#include <mutex>
#include <string>
#include <utility>

#include "base/check.h"
#include "text/grammar/json_automata.h"
#include "text/grammar/pattern.h"

namespace perdure::text {
namespace {

// RFC 3339, with leap years as they are; years 0001 to 9999.
const std::string kYear = "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})";
const std::string kLeapYear =
    "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const std::string kDate =
    "(?:" + kYear +
    "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"
    "02-(?:0[1-9]|1\\d|2[0-8]))|" +
    kLeapYear + "-02-29)";
const std::string kTime =
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";

// RFC 1123: labels of letters, digits and single hyphens (45 here, of 63), at most 253 characters
// in all.
const std::string kLabel = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,22}";
const std::string kHost = kLabel + "(?:\\." + kLabel + "){0,4}";

const std::string kOctet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const std::string kIpv4 = kOctet + "(?:\\." + kOctet + "){3}";

// RFC 4291 in its forms without an IPv4 address.
std::string Ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  std::string all = fmt::format("(?:{0}:){{7}}{0}", group);
  // So many groups before "::", and at most what is left of six behind it.
  for (int before = 0; before <= 7; ++before) {
    const std::string left = before == 0 ? ":" : fmt::format("(?:{}:){{{}}}", group, before);
    const int most = 7 - before;
    all += "|" + left + ":";
    if (most > 0) all += fmt::format("(?:{0}(?::{0}){{0,{1}}})?", group, most - 1);
  }
  return "(?:" + all + ")";
}

// RFC 3339, appendix A.
std::string Duration() {
  const std::string n = "\\d{1,9}";
  const std::string time = fmt::format("T(?:{0}H(?:{0}M(?:{0}S)?)?|{0}M(?:{0}S)?|{0}S)", n);
  const std::string date =
      fmt::format("(?:{0}Y(?:{0}M(?:{0}D)?)?|{0}M(?:{0}D)?|{0}D)(?:{1})?", n, time);
  return fmt::format("P(?:{}|{}|{}W)", date, time, n);
}

// RFC 3986 with a host by name or IPv4 address, or without any authority.
std::string Uri() {
  const std::string character = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
  const std::string path = "(?:/" + character + "*)*";
  const std::string authority = "//[A-Za-z0-9](?:[A-Za-z0-9._~-]*[A-Za-z0-9])?(?::\\d{1,5})?";
  const std::string tail = "(?:" + character + "|[/?])*";
  return "[A-Za-z][A-Za-z0-9+.-]*:(?:" + authority + path + "|" + character + "+" + path +
         ")(?:\\?" + tail + ")?(?:#" + tail + ")?";
}

}  // namespace

std::optional<AutomatonPtr> FindFormat(std::string_view format) {
  struct Format {
    std::string_view name;
    std::string pattern;
    std::once_flag once;
    AutomatonPtr automaton;
  };
  static std::array<Format, 10> formats = {{
      {"date", kDate, {}, {}},
      {"time", kTime, {}, {}},
      {"date-time", kDate + "T" + kTime, {}, {}},
      {"duration", Duration(), {}, {}},
      {"uuid", "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", {}, {}},
      {"email", "[A-Za-z0-9_+-]{1,20}(?:\\.[A-Za-z0-9_+-]{1,20}){0,2}@" + kHost, {}, {}},
      {"hostname", kHost, {}, {}},
      {"ipv4", kIpv4, {}, {}},
      {"ipv6", Ipv6(), {}, {}},
      {"uri", Uri(), {}, {}},
  }};
  for (Format& known : formats) {
    if (known.name != format) continue;
    std::call_once(known.once, [&] {
      AutomatonBudget budget;
      auto made = CompilePatternInJson("^(?:" + known.pattern + ")$", &budget);
      CHECK(made.has_value());
      known.automaton = *made;
    });
    return known.automaton;
  }
  return std::nullopt;
}

}  // namespace perdure::text
