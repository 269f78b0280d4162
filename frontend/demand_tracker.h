// What is asked of each model, for the supervisor: it loads models for requests that wait, and
// leaves those in memory that are in use. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "protocol/messages.h"

namespace perdure::frontend {

class DemandTracker {
 public:
  // Something has changed of this model's requests.
  void Touch(const std::string& model) { touched_[model]; }
  // One has ended that said how long the model shall stay.
  void OnEnd(const std::string& model, std::optional<int32_t> keep_alive_s);
  bool changed() const { return !touched_.empty(); }

  // Collects all requests under way: for each model, those that wait and those that a worker has.
  class Count {
   public:
    void Waiting(const std::string& model, int64_t waited_ms);
    void Running(const std::string& model) { ++models_[model].running; }

   private:
    friend class DemandTracker;
    std::map<std::string, protocol::ModelDemand> models_;
  };
  // The message, with what was touched since the one before.
  protocol::Demand Take(Count count);

 private:
  std::map<std::string, std::optional<int32_t>> touched_;  // with what the last request said
};

}  // namespace perdure::frontend
