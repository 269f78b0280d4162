// Methods of lists, tuples, dicts, loops and cyclers. Those that change their object are refused
// where attributes are looked up (access.cc).
#include <fmt/format.h>

#include "text/template/methods.h"
#include "text/template/operators.h"

namespace perdure::text::jinja {
namespace {

Result<Value> View(const Value& self, const Args& args, DictViewObject::Part part) {
  RETURN_IF_ERROR(Bind("the method", args, {}));
  auto view = std::make_shared<DictViewObject>();
  view->dict = self.dict_ptr();
  view->part = part;
  view->depth = self.dict().depth();
  return Value::FromObject(std::move(view));
}

Result<Value> Items(Runtime&, const Value& self, const Args& args) {
  return View(self, args, DictViewObject::Part::kItems);
}
Result<Value> Keys(Runtime&, const Value& self, const Args& args) {
  return View(self, args, DictViewObject::Part::kKeys);
}
Result<Value> Values(Runtime&, const Value& self, const Args& args) {
  return View(self, args, DictViewObject::Part::kValues);
}

Result<Value> Get(Runtime&, const Value& self, const Args& args) {
  if (!args.named.empty()) return Fail("get() takes no keyword arguments");
  ASSIGN_OR_RETURN(const auto bound, Bind("get", args, {"key", "default"}, 1));
  if (!IsHashable(bound[0])) return Fail(fmt::format("unhashable type: '{}'", TypeName(bound[0])));
  if (const Value* found = self.dict().Find(bound[0])) return *found;
  return bound[1].IsAbsent() ? Value::None() : bound[1];
}

// dict.fromkeys(keys, value)
Result<Value> FromKeys(Runtime& rt, const Value&, const Args& args) {
  if (!args.named.empty()) return Fail("fromkeys() takes no keyword arguments");
  ASSIGN_OR_RETURN(const auto bound, Bind("fromkeys", args, {"iterable", "value"}, 1));
  ASSIGN_OR_RETURN(const std::vector<Value> keys, Iterate(rt, bound[0]));
  Dict dict;
  for (const Value& key : keys) {
    RETURN_IF_ERROR(rt.ChargeFor(key));
    RETURN_IF_ERROR(dict.Set(key, bound[1].IsAbsent() ? Value::None() : bound[1]));
  }
  RETURN_IF_ERROR(rt.ProduceItems(2 * dict.size()));
  return Value::FromDict(std::make_shared<const Dict>(std::move(dict)));
}

Result<Value> Copy(Runtime&, const Value& self, const Args& args) {
  RETURN_IF_ERROR(Bind("copy", args, {}));
  return self;
}

Result<Value> Count(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("count", args, {"value"}, 1));
  Int count = 0;
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, self));
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const bool equal, Equals(rt, item, bound[0]));
    count += equal ? 1 : 0;
  }
  return Value::Integer(count);
}

Result<Value> Index(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("index", args, {"value"}, 1));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, self));
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equals(rt, items[i], bound[0]));
    if (equal) return Value::Integer(static_cast<Int>(i));
  }
  return Fail("the value is not in the list");
}

Result<Value> LoopCycle(Runtime&, const Value& self, const Args& args) {
  if (args.positional.empty()) return Fail("no items for cycling given");
  return args.positional[AsLoop(self)->index0 % args.positional.size()];
}

Result<Value> LoopChanged(Runtime& rt, const Value& self, const Args& args) {
  LoopObject* loop = AsLoop(self);
  ASSIGN_OR_RETURN(const Value now, MakeTuple(args.positional));
  if (!loop->changed.IsAbsent()) {
    ASSIGN_OR_RETURN(const bool equal, Equals(rt, loop->changed, now));
    if (equal) return Value::Bool(false);
  }
  // The value may hold the loop itself.
  if (loop->changed.IsAbsent()) rt.Own(self.object());
  loop->changed = now;
  return Value::Bool(true);
}

Result<Value> CyclerNext(Runtime&, const Value& self, const Args&) {
  auto* cycler = ObjectAs<CyclerObject>(self, ObjectType::kCycler);
  const Value value = cycler->items[cycler->at];
  cycler->at = (cycler->at + 1) % cycler->items.size();
  return value;
}

Result<Value> CyclerReset(Runtime&, const Value& self, const Args&) {
  ObjectAs<CyclerObject>(self, ObjectType::kCycler)->at = 0;
  return Value::None();
}

}  // namespace

Function FindCollectionMethod(const Value& self, std::string_view name) {
  if (self.IsDict()) {
    if (name == "items") return Items;
    if (name == "keys") return Keys;
    if (name == "values") return Values;
    if (name == "get") return Get;
    if (name == "copy") return Copy;
    if (name == "fromkeys") return FromKeys;
    return nullptr;
  }
  if (const auto* function = ObjectAs<FunctionObject>(self, ObjectType::kFunction);
      function != nullptr && name == "fromkeys" && function->name == "dict")
    return FromKeys;
  if (self.IsSequence() || AsRange(self) != nullptr) {
    if (name == "count") return Count;
    if (name == "index") return Index;
    if (name == "copy" && self.IsList()) return Copy;
    return nullptr;
  }
  if (AsLoop(self) != nullptr) {
    if (name == "cycle") return LoopCycle;
    if (name == "changed") return LoopChanged;
    return nullptr;
  }
  if (ObjectAs<CyclerObject>(self, ObjectType::kCycler) != nullptr) {
    if (name == "next") return CyclerNext;
    if (name == "reset") return CyclerReset;
  }
  return nullptr;
}

Function FindMethod(const Value& self, std::string_view name) {
  return self.IsString() ? FindStringMethod(name) : FindCollectionMethod(self, name);
}

}  // namespace perdure::text::jinja
