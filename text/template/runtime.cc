#include "text/template/runtime.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace perdure::text::jinja {

Status Runtime::Charge(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits::kTemplateStepsMax)
    return Fail(fmt::format("the template took more than {} steps", limits::kTemplateStepsMax));
  return {};
}

Status Runtime::ChargeFor(const Value& value) {
  switch (value.kind()) {
    case Kind::kString:
      return Charge(static_cast<int64_t>(value.string().size() / 64));
    case Kind::kSequence:
      return Charge(static_cast<int64_t>(value.items().size() / 8));
    case Kind::kDict:
      return Charge(static_cast<int64_t>(value.dict().size() / 8));
    case Kind::kObject:
      if (const RangeObject* range = AsRange(value))
        return Charge(static_cast<int64_t>(range->length / 8));
      if (const IteratorObject* iterator = AsIterator(value))
        return Charge(static_cast<int64_t>(iterator->items.size() / 8));
      if (const DictViewObject* view = AsDictView(value))
        return Charge(static_cast<int64_t>(view->dict->size() / 8));
      return {};
    default:
      return {};
  }
}

Status Runtime::Fits(size_t bytes) const {
  if (bytes > limits::kTemplateOutputBytesMax - bytes_)
    return Fail(
        fmt::format("the template produced more than {} bytes", limits::kTemplateOutputBytesMax));
  return {};
}

Status Runtime::Produce(size_t bytes) {
  RETURN_IF_ERROR(Fits(bytes));
  bytes_ += bytes;
  return {};
}

Result<Value> Runtime::NewString(MarkedString text) {
  RETURN_IF_ERROR(Produce(text.bytes()));
  return Value::String(std::move(text));
}

Result<Value> Runtime::NewList(std::vector<Value> items) {
  RETURN_IF_ERROR(Produce(16 * items.size() + 32));
  return MakeList(std::move(items));
}

Result<Value> Runtime::NewTuple(std::vector<Value> items) {
  RETURN_IF_ERROR(Produce(16 * items.size() + 32));
  return MakeTuple(std::move(items));
}

Result<Value> Runtime::NewIterator(std::vector<Value> items, std::shared_ptr<const Error> failure) {
  RETURN_IF_ERROR(ProduceItems(items.size()));
  auto iterator = std::make_shared<IteratorObject>();
  ASSIGN_OR_RETURN(iterator->depth, DepthAbove(items));
  iterator->items = std::move(items);
  iterator->failure = std::move(failure);
  return Value::FromObject(std::move(iterator));
}

Result<std::vector<Value>> Bind(std::string_view function, const Args& args,
                                std::initializer_list<std::string_view> parameters,
                                size_t required) {
  std::vector<Value> bound(parameters.size());
  if (args.positional.size() > parameters.size())
    return Fail(fmt::format("{}() takes at most {} argument(s), got {}", function,
                            parameters.size(), args.positional.size()));
  std::copy(args.positional.begin(), args.positional.end(), bound.begin());
  for (const auto& [name, value] : args.named) {
    size_t i = 0;
    while (i < parameters.size() && parameters.begin()[i] != name) ++i;
    if (i == parameters.size())
      return Fail(fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    if (!bound[i].IsAbsent())
      return Fail(fmt::format("{}() got multiple values for argument '{}'", function, name));
    bound[i] = value;
  }
  for (size_t i = 0; i < required; ++i)
    if (bound[i].IsAbsent())
      return Fail(fmt::format("{}() misses the argument '{}'", function, parameters.begin()[i]));
  return bound;
}

}  // namespace perdure::text::jinja
