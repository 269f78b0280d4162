// What one rendering shares with every operator, filter, test and method: its bounds, its clock,
// and the way to call values.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/template/template_time.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

class Runtime {
 public:
  explicit Runtime(const TemplateTime& time) : time_(time) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Counts work; an error when the rendering's is used up.
  Status Charge(int64_t steps);
  // Steps for looking at all of `value`: a share of its bytes or elements.
  Status ChargeFor(const Value& value);
  // Steps for a look at each character.
  Status ChargeForCharacters(const MarkedString& text) {
    return Charge(static_cast<int64_t>(text.size() / 4));
  }
  // Counts bytes (and elements, 16 bytes each) that now exist beside all others.
  Status Produce(size_t bytes);
  Status ProduceItems(size_t items) { return Produce(16 * items); }
  // Small strings, lists and objects made in great numbers: what each takes beside its content.
  Status ProduceObjects(size_t objects) { return Produce(kObjectBytes * objects); }
  // An error when `bytes` more would not be granted: before they are allocated.
  Status Fits(size_t bytes) const;
  Result<Value> NewString(MarkedString text);
  Result<Value> NewList(std::vector<Value> items);
  Result<Value> NewTuple(std::vector<Value> items);
  Result<Value> NewIterator(std::vector<Value> items,
                            std::shared_ptr<const Error> failure = nullptr);

  const TemplateTime& time() const { return time_; }

  virtual Result<Value> Call(const Value& callee, const Args& args) = 0;
  // The next error's text is complete: no place is added (raise_exception).
  virtual void MarkLocated() = 0;
  // A namespace or loop, which may come to hold itself: it is emptied when the rendering ends.
  void Own(std::shared_ptr<Object> object) { owned_.push_back(std::move(object)); }

 protected:
  std::vector<std::shared_ptr<Object>> owned_;

 private:
  static constexpr size_t kObjectBytes = 96;

  TemplateTime time_;
  int64_t steps_ = 0;
  size_t bytes_ = 0;
};

// Arguments bound to the names of a function's parameters, as Python binds them; what was not
// passed is absent. `function` stands in errors.
Result<std::vector<Value>> Bind(std::string_view function, const Args& args,
                                std::initializer_list<std::string_view> parameters,
                                size_t required = 0);

// Tables.
Function FindFilter(std::string_view name);
Function FindTest(std::string_view name);
Function FindMethod(const Value& self, std::string_view name);
Function FindGlobal(std::string_view name);

}  // namespace perdure::text::jinja
