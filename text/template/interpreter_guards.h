// What the interpreter sets for a while and puts back.
#pragma once

#include <memory>
#include <utility>

#include "base/limits.h"
#include "text/template/interpreter.h"

namespace perdure::text::jinja {

// A new, empty scope inside `parent`.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter* interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(interpreter),
        saved_(std::exchange(interpreter->scope_,
                             std::make_shared<Scope>(Scope{std::move(parent), {}}))) {}
  ~ScopeGuard() { interpreter_->scope_ = std::move(saved_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter* interpreter_;
  std::shared_ptr<Scope> saved_;
};

class Interpreter::OutputGuard {
 public:
  OutputGuard(MarkedString** out, MarkedString* to) : out_(out), saved_(std::exchange(*out, to)) {}
  ~OutputGuard() { *out_ = saved_; }
  OutputGuard(const OutputGuard&) = delete;
  OutputGuard& operator=(const OutputGuard&) = delete;

 private:
  MarkedString** out_;
  MarkedString* saved_;
};

class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  bool TooDeep() const { return *depth_ > limits::kTemplateEvalDepthMax; }

 private:
  int* depth_;
};

}  // namespace perdure::text::jinja
