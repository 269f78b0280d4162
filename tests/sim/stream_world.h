// One seed of the stream simulation: clients, frontend, worker and supervisor, and what happens to
// them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "frontend/dispatcher.h"
#include "frontend/model_table.h"
#include "supervisor/suspects.h"
#include "tests/sim/stream_clients.h"
#include "tests/sim/stream_processes.h"

namespace perdure::sim {

// What can happen to a seed, and is counted: a simulation may not quietly stop reaching it.
enum class Happening {
  // Deaths of workers, by what they were doing.
  kDeathInStep,
  kDeathAtSend,
  kDeathAtStore,
  kDeathInFold,
  kDeathAtRest,
  kDeathByPoison,
  // Deaths of replacements.
  kDeathWhileAttaching,
  kDeathInHello,
  kDeathBeforeItsFirstAnswer,
  kDeathInResume,
  kThreeDeathsInARow,  // of workers that had answered nothing
  kDeathWithUnreadChannel,
  // What is left to the others.
  kTornFrame,
  kResumed,
  kPagesKept,
  kQuarantined,
  // Clients.
  kSlowClient,  // credit has run out: nothing to do but live requests
  kHangup,
  kAskedAgain,
  // Frontends.
  kFrontendDeath,
  kFrontendDeathWithoutWorker,
  kTwoFrontendsBeforeTheWorkerLooked,
  kWorkAfterFrontendDeath,
  kWorkerDeathBeforeItLooked,
  kWorkerDeathWhileCancelling,
  // Supervisors.
  kSupervisorDeath,
  kArenaTakenOver,
  kArenaGone,
  kCount
};

struct Weather {
  bool rough = false;  // nothing below happens without
  bool slow_clients = false;
  bool hangups = false;
  bool frontend_deaths = false;
  bool supervisor_deaths = false;
  bool typed = false;  // requests say how their KV is kept; only those with an id are recognised
};

class World {
 public:
  using Answers = std::map<protocol::RequestId, Parts>;  // by Script::first_rid

  World(uint32_t seed, std::vector<Script> scripts, const Weather& weather);
  ~World();

  // Until every request is answered. With `expected`, each client's bytes are a prefix of its
  // answer there all the time.
  void Run(const Answers* expected);

  const std::map<protocol::RequestId, std::unique_ptr<Client>>& clients() const { return clients_; }
  int happened(Happening what) const { return happened_[static_cast<size_t>(what)]; }

 private:
  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Chance(int one_in) { return Pick(1, one_in) == 1; }
  void Note(Happening what) { ++happened_[static_cast<size_t>(what)]; }
  bool Done() const;
  void Turn();
  void Fate();
  void Settle();
  bool SettleOnce();

  // Clients.
  void Arrive();
  void ClientsRead();
  void Check(const Client& client) const;
  void Hangup();
  void LoseClients();

  // The worker, and the supervisor's part in it.
  void StartWorker();
  void OfferChannel(std::shared_ptr<Channel> channel);
  Doom PickDoom(bool at_start);
  template <class F>
  void InWorker(F f);
  void WorkerReads(bool all);
  bool WorkerWorks();
  void OnDeath(const Killed& killed, const Doom& doom);
  void NoteDeath(const Killed& killed, const Doom& doom);
  void EndChannel(Channel* channel);
  void SetState(protocol::ModelState state);
  void KillSupervisor();

  // The frontend.
  void StartFrontend();
  void KillFrontend();
  size_t FrontendReads(bool all);  // frames

  std::mt19937 random_;
  std::vector<Script> scripts_;
  const Weather weather_;
  const Answers* expected_ = nullptr;
  int64_t now_ms_ = 1'000'000;
  std::array<int, static_cast<size_t>(Happening::kCount)> happened_{};

  protocol::FrontendSettings settings_;
  frontend::ModelTable models_;
  std::unique_ptr<frontend::Dispatcher> dispatcher_;
  EventOrder order_;
  protocol::ModelState state_ = protocol::ModelState::kFailed;
  std::vector<std::unique_ptr<Connection>> connections_;

  UniqueFd arena_;
  std::unique_ptr<WorkerProcess> worker_;
  std::shared_ptr<Channel> new_channel_;  // waits until the worker looks
  uint32_t epoch_ = 0;
  int deaths_in_a_row_ = 0;
  supervisor::Suspects suspects_;

  bool settling_ = false;
  size_t started_ = 0;  // of scripts_
  std::map<protocol::RequestId, std::unique_ptr<Client>> clients_;
};

}  // namespace perdure::sim
