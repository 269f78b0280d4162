// map, select, reject and their like: filters that apply others.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/filters.h"
#include "text/template/operators.h"

namespace perdure::text::jinja {
namespace {

Args Tail(const Args& args, size_t from) {
  Args tail;
  tail.named = args.named;
  if (from < args.positional.size())
    tail.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(from),
                           args.positional.end());
  return tail;
}

Status MapInto(Runtime& rt, const Value& value, const Args& args, std::vector<Value>* mapped) {
  const auto named = [&](std::string_view name) {
    const auto it = std::find_if(args.named.begin(), args.named.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    return it != args.named.end() ? it->second : Value();
  };
  const Value attribute = named("attribute");
  const bool by_attribute = args.positional.empty() && !attribute.IsAbsent();
  Function filter = nullptr;
  Args rest;
  if (by_attribute) {
    for (const auto& [name, unused] : args.named)
      if (name != "attribute" && name != "default")
        return Fail(fmt::format("map: unexpected keyword argument '{}'", name));
  } else {
    if (args.positional.empty()) return Fail("map requires a filter argument");
    const Value& name = args.positional[0];
    filter = name.IsString() ? FindFilter(name.text()) : nullptr;
    if (filter == nullptr) return UnknownFilter(name.IsString() ? name.text() : "?");
    rest = Tail(args, 1);
  }
  std::shared_ptr<const Error> failure;
  ASSIGN_OR_RETURN(const std::vector<Value> items, IterateLazily(rt, value, &failure));
  const Value fallback = named("default");
  mapped->reserve(items.size());
  for (const Value& item : items) {
    RETURN_IF_ERROR(rt.Charge(1));
    Value result;
    if (by_attribute) {
      ASSIGN_OR_RETURN(result, GetPath(rt, item, attribute, fallback));
    } else {
      RETURN_IF_ERROR(rt.ChargeFor(item));
      ASSIGN_OR_RETURN(result, filter(rt, item, rest));
    }
    mapped->push_back(std::move(result));
  }
  if (failure) return Err(*failure);
  return {};
}

Result<Value> Map(Runtime& rt, const Value& value, const Args& args) {
  std::vector<Value> mapped;
  if (!IsTrue(value)) return rt.NewIterator({});
  Status status = MapInto(rt, value, args, &mapped);
  if (!status)
    return rt.NewIterator(std::move(mapped), std::make_shared<const Error>(status.error()));
  return rt.NewIterator(std::move(mapped));
}

Status ChooseInto(Runtime& rt, const Value& value, const Args& args, bool by_attribute, bool wanted,
                  std::vector<Value>* chosen) {
  const size_t name_at = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty())
    return Fail("missing parameter for the attribute's name");
  Function test = nullptr;
  Args rest;
  if (args.positional.size() > name_at) {
    const Value& name = args.positional[name_at];
    test = name.IsString() ? FindTest(name.text()) : nullptr;
    if (test == nullptr)
      return Fail(fmt::format("no test named '{}'", name.IsString() ? name.text() : "?"));
    rest = Tail(args, name_at + 1);
  }
  std::shared_ptr<const Error> failure;
  ASSIGN_OR_RETURN(const std::vector<Value> items, IterateLazily(rt, value, &failure));
  for (const Value& item : items) {
    RETURN_IF_ERROR(rt.Charge(1));
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, GetPath(rt, item, args.positional[0], Value()));
    }
    bool holds = false;
    if (test != nullptr) {
      ASSIGN_OR_RETURN(const Value result, test(rt, subject, rest));
      holds = IsTrue(result);
    } else {
      holds = IsTrue(subject);
    }
    if (holds == wanted) chosen->push_back(item);
  }
  if (failure) return Err(*failure);
  return {};
}

Result<Value> Choose(Runtime& rt, const Value& value, const Args& args, bool by_attribute,
                     bool wanted) {
  std::vector<Value> chosen;
  if (!IsTrue(value)) return rt.NewIterator({});
  Status status = ChooseInto(rt, value, args, by_attribute, wanted, &chosen);
  if (!status)
    return rt.NewIterator(std::move(chosen), std::make_shared<const Error>(status.error()));
  return rt.NewIterator(std::move(chosen));
}

Result<Value> Select(Runtime& rt, const Value& value, const Args& args) {
  return Choose(rt, value, args, false, true);
}
Result<Value> Reject(Runtime& rt, const Value& value, const Args& args) {
  return Choose(rt, value, args, false, false);
}
Result<Value> SelectAttr(Runtime& rt, const Value& value, const Args& args) {
  return Choose(rt, value, args, true, true);
}
Result<Value> RejectAttr(Runtime& rt, const Value& value, const Args& args) {
  return Choose(rt, value, args, true, false);
}

constexpr FilterEntry kFilters[] = {
    {"map", Map},       {"reject", Reject},         {"rejectattr", RejectAttr},
    {"select", Select}, {"selectattr", SelectAttr},
};

}  // namespace

Function FindSelectFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
