// perdure-worker, but that computing a skull and crossbones ends it.
#include <csignal>
#include <memory>
#include <utility>

#include "programs/child_main.h"
#include "worker/worker.h"

namespace perdure {
namespace {

class PoisonEngine final : public engine::Engine {
 public:
  PoisonEngine(std::unique_ptr<engine::Engine> inner, TokenId poison)
      : inner_(std::move(inner)), poison_(poison) {}
  const engine::ModelInfo& info() const override { return inner_->info(); }
  const engine::GenerationDefaults& generation_defaults() const override {
    return inner_->generation_defaults();
  }
  std::span<const float> Step(std::span<const engine::SequenceStep> sequences) override {
    for (const engine::SequenceStep& step : sequences) {
      for (const TokenId id : step.tokens) {
        if (id == poison_) raise(SIGSEGV);
      }
    }
    return inner_->Step(sequences);
  }

 private:
  std::unique_ptr<engine::Engine> inner_;
  const TokenId poison_;
};

void Poison(worker::Model* model) {
  // Its first byte is in no other word of the tests.
  const TokenId poison = model->tokenizer->Encode("\u2620").value().front();
  model->engine = std::make_unique<PoisonEngine>(std::move(model->engine), poison);
}

int Run(const protocol::Heritage& heritage) { return worker::RunWorker(heritage, Poison); }

}  // namespace
}  // namespace perdure

int main(int argc, char** argv) { return perdure::ChildMain(argc, argv, perdure::Run); }
