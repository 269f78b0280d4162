// Python's operators on values: arithmetic, comparison, containment, iteration, items, attributes.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/template/runtime.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

enum class Op { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

Result<Value> Arithmetic(Runtime& rt, Op op, const Value& a, const Value& b);
Result<Value> Negate(const Value& value);
Result<Value> Plus(const Value& value);

Result<bool> Equals(Runtime& rt, const Value& a, const Value& b);
Result<bool> LessThan(Runtime& rt, const Value& a, const Value& b);
Result<bool> Contains(Runtime& rt, const Value& container, const Value& item);
Result<bool> Compare(Runtime& rt, CompareOp op, const Value& a, const Value& b);

// The elements that a for loop sees; an iterator is used up.
Result<std::vector<Value>> Iterate(Runtime& rt, const Value& value);
// As Iterate, but the error that a lazy iterator would end in is put into `failure`.
Result<std::vector<Value>> IterateLazily(Runtime& rt, const Value& value,
                                         std::shared_ptr<const Error>* failure);
// len(value)
Result<size_t> Length(Runtime& rt, const Value& value);

// value.name and value[key] as the sandbox gives them: undefined where there is none.
Result<Value> GetAttribute(Runtime& rt, const Value& value, std::string_view name);
Result<Value> GetItem(Runtime& rt, const Value& value, const Value& key);
// Absent bounds are Python's omitted ones.
Result<Value> GetSlice(Runtime& rt, const Value& value, const Value& start, const Value& stop,
                       const Value& step);

// "'name' is undefined" and its like, as an error.
tl::unexpected<Error> FailUndefined(const Value& value);

}  // namespace perdure::text::jinja
