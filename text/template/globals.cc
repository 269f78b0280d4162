// The functions that a template can call by name.
#include <fmt/format.h>
#include <locale.h>
#include <time.h>

#include "base/limits.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/runtime.h"
#include "text/template/text_functions.h"

namespace perdure::text::jinja {
namespace {

Result<Value> Range(Runtime& rt, const Value&, const Args& args) {
  if (!args.named.empty()) return Fail("range() takes no keyword arguments");
  const auto& given = args.positional;
  if (given.empty() || given.size() > 3) return Fail("range() takes one to three arguments");
  auto range = std::make_shared<RangeObject>();
  if (given.size() == 1) {
    ASSIGN_OR_RETURN(range->stop, IntArg(given[0], 0, "range: the end"));
  } else {
    ASSIGN_OR_RETURN(range->start, IntArg(given[0], 0, "range: the start"));
    ASSIGN_OR_RETURN(range->stop, IntArg(given[1], 0, "range: the end"));
    if (given.size() == 3) {
      ASSIGN_OR_RETURN(range->step, IntArg(given[2], 1, "range: the step"));
    }
  }
  if (range->step == 0) return Fail("range() arg 3 must not be zero");
  const Int span = range->step > 0 ? range->stop - range->start : range->start - range->stop;
  const Int step = range->step > 0 ? range->step : -range->step;
  const Int length = span > 0 ? (span + step - 1) / step : 0;
  if (length > limits::kTemplateRangeMax)
    return Fail(fmt::format("range() of more than {} elements", limits::kTemplateRangeMax));
  range->length = static_cast<size_t>(length);
  RETURN_IF_ERROR(rt.Charge(1));
  return Value::FromObject(std::move(range));
}

// dict(mapping or pairs, **more)
Result<Dict> DictOf(Runtime& rt, const Args& args) {
  Dict dict;
  if (args.positional.size() > 1) return Fail("dict() takes at most one positional argument");
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.IsUndefined()) return FailUndefined(from);
    if (from.IsDict()) {
      dict = from.dict();
    } else {
      ASSIGN_OR_RETURN(const std::vector<Value> pairs, Iterate(rt, from));
      for (const Value& pair : pairs) {
        ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(rt, pair));
        if (parts.size() != 2) return Fail("dict() needs pairs of key and value");
        RETURN_IF_ERROR(rt.ChargeFor(parts[0]));
        RETURN_IF_ERROR(dict.Set(parts[0], parts[1]));
      }
    }
  }
  for (const auto& [name, value] : args.named)
    RETURN_IF_ERROR(dict.Set(Value::String(name), value));
  RETURN_IF_ERROR(rt.ProduceItems(2 * dict.size()));
  return dict;
}

Result<Value> DictGlobal(Runtime& rt, const Value&, const Args& args) {
  ASSIGN_OR_RETURN(Dict dict, DictOf(rt, args));
  return Value::FromDict(std::make_shared<const Dict>(std::move(dict)));
}

Result<Value> Namespace(Runtime& rt, const Value&, const Args& args) {
  RETURN_IF_ERROR(rt.ProduceObjects(2));
  auto space = std::make_shared<NamespaceObject>();
  ASSIGN_OR_RETURN(space->attributes, DictOf(rt, args));
  for (const auto& entry : space->attributes.entries()) {
    if (entry.key.IsString() && entry.key.text().starts_with('_'))
      return Fail("attributes of a namespace cannot start with '_'");
  }
  rt.Own(space);
  return Value::FromObject(std::move(space));
}

Result<Value> RaiseException(Runtime& rt, const Value&, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("raise_exception", args, {"message"}, 1));
  ASSIGN_OR_RETURN(const MarkedString message, ToStr(rt, bound[0]));
  rt.MarkLocated();
  return Fail("the model's chat template refuses this conversation: " + message.text());
}

// Directives that libc does not know, or takes from the process's time zone.
std::string ExpandPythonDirectives(const std::string& format, int64_t unix_time) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      out += format[i];
      continue;
    }
    const char c = format[++i];
    if (c == 'f')
      out += "000000";
    else if (c == 's')
      out += std::to_string(unix_time);
    else if (c != 'z' && c != 'Z')  // a naive datetime has no zone
      out += {'%', c};
  }
  return out;
}

Result<Value> StrftimeNow(Runtime& rt, const Value&, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("strftime_now", args, {"format"}, 1));
  ASSIGN_OR_RETURN(const MarkedString format, StringArg(bound[0], "strftime_now: the format"));
  if (format.size() > static_cast<size_t>(limits::kTemplateFormatWidthMax))
    return Fail("strftime_now: the format is too long");
  // Widths (%1000000d) are a GNU extension that would let the result grow without bound.
  for (size_t i = 0; i + 1 < format.size(); ++i) {
    if (format.text()[i] != '%') continue;
    size_t digits = i + 1;
    while (digits < format.size() && format.text()[digits] >= '0' && format.text()[digits] <= '9')
      ++digits;
    if (digits > i + 4) return Fail("strftime_now: a width is too large");
    if (digits == i + 1) ++i;
  }
  const std::string expanded = ExpandPythonDirectives(format.text(), rt.time().unix_time);
  if (expanded.empty()) return Value::String("");
  const time_t seconds = static_cast<time_t>(rt.time().unix_time + rt.time().utc_offset_s);
  tm broken_down = {};
  if (gmtime_r(&seconds, &broken_down) == nullptr)
    return Fail("strftime_now: the time is out of range");
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  // An empty result is told from a small buffer by a byte in front.
  const std::string padded = " " + expanded;
  std::string text(padded.size() * 8 + 1024, '\0');
  size_t size = 0;
  while (size == 0 && text.size() < (size_t{1} << 26)) {
    size = strftime_l(text.data(), text.size(), padded.c_str(), &broken_down, c_locale);
    if (size == 0) text.resize(text.size() * 4);
  }
  if (size == 0) return Fail("strftime_now: the result is too long");
  return rt.NewString(MarkedString(text.substr(1, size - 1), format.AnyInput()));
}

Result<Value> Cycler(Runtime&, const Value&, const Args& args) {
  if (args.positional.empty()) return Fail("cycler() needs at least one item");
  auto cycler = std::make_shared<CyclerObject>();
  ASSIGN_OR_RETURN(cycler->depth, DepthAbove(args.positional));
  cycler->items = args.positional;
  return Value::FromObject(std::move(cycler));
}

Result<Value> Joiner(Runtime&, const Value&, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("joiner", args, {"sep"}));
  auto joiner = std::make_shared<JoinerObject>();
  ASSIGN_OR_RETURN(joiner->depth, DepthAbove({bound[0]}));
  joiner->separator = bound[0].IsAbsent() ? Value::String(", ") : bound[0];
  return Value::FromObject(std::move(joiner));
}

}  // namespace

Function FindGlobal(std::string_view name) {
  if (name == "range") return Range;
  if (name == "dict") return DictGlobal;
  if (name == "namespace") return Namespace;
  if (name == "raise_exception") return RaiseException;
  if (name == "strftime_now") return StrftimeNow;
  if (name == "cycler") return Cycler;
  if (name == "joiner") return Joiner;
  return nullptr;
}

}  // namespace perdure::text::jinja
