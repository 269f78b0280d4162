#include "tests/sim/stream_world.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "shm/arena.h"

namespace perdure::sim {

using protocol::ModelState;
using protocol::RequestId;

namespace {

constexpr int kRoughTurns = 150;
constexpr int kAsksMax = 3;            // of one client
constexpr RequestId kNextAsk = 1'000;  // rids of those who ask again

// Of all worlds in turn, as the kernel takes longer to make one than a world lasts: each begins
// with free pages.
UniqueFd EmptyArena() {
  static const UniqueFd kArena(memfd_create("arena", MFD_CLOEXEC));
  const auto geometry = shm::ArenaGeometry::For(SpecOf(kPagesMax).shape).value();
  const std::vector<std::byte> zeros(geometry.descriptors_offset +
                                     geometry.pages_max * sizeof(shm::PageDescriptorShm) -
                                     shm::kArenaConversationsOffset);
  EXPECT_EQ(pwrite(kArena.get(), zeros.data(), zeros.size(), shm::kArenaConversationsOffset),
            static_cast<ssize_t>(zeros.size()));
  return UniqueFd(fcntl(kArena.get(), F_DUPFD_CLOEXEC, 0));
}

UniqueFd NewArena() { return UniqueFd(memfd_create("arena", MFD_CLOEXEC)); }

}  // namespace

World::World(uint32_t seed, std::vector<Script> scripts, const Weather& weather)
    : random_(seed), scripts_(std::move(scripts)), weather_(weather) {
  if (weather.rough) arena_ = EmptyArena();
  settings_.queue_max = 1000;
  settings_.sse_comment_s = 1;
  StartFrontend();
  StartWorker();
}

World::~World() = default;

void World::Run(const Answers* expected) {
  expected_ = expected;
  for (int i = 0; weather_.rough && i < kRoughTurns && !testing::Test::HasFailure(); ++i) Turn();
  Settle();
  if (testing::Test::HasFailure()) return;
  EXPECT_EQ(worker_->generator().live(), 0u);
  EXPECT_EQ(worker_->store().referenced(), worker_->pinned());
  EXPECT_EQ(dispatcher_->active(), 0u);
}

bool World::Done() const {
  return started_ == scripts_.size() &&
         std::all_of(clients_.begin(), clients_.end(),
                     [](const auto& c) { return c.second->ended(); });
}

void World::Turn() {
  now_ms_ += Pick(0, 300);
  switch (Pick(0, 9)) {
    case 0:
      return Arrive();
    case 1:
    case 2:
      return WorkerReads(Chance(2));
    case 3:
    case 4:
    case 5:
      WorkerWorks();
      return;
    case 6:
    case 7:
      FrontendReads(!Chance(3));
      return;
    case 8:
      return ClientsRead();
    case 9:
      dispatcher_->OnTick(now_ms_);
      return Fate();
  }
}

void World::Fate() {
  if (worker_ != nullptr && Chance(4)) {
    if (Chance(5))
      OnDeath({}, {});
    else
      worker_->doom = PickDoom(false);
  }
  if (weather_.hangups && Chance(20)) Hangup();
  if (weather_.frontend_deaths && Chance(12)) KillFrontend();
  if (weather_.supervisor_deaths && Chance(20)) KillSupervisor();
}

// Everybody does what there is to do, and nothing else happens: what was begun comes to its end.
// Ticks come only when all wait for one, and nobody may wait for two: no wake-up is lost.
void World::Settle() {
  settling_ = true;
  if (worker_ != nullptr) worker_->doom = {};
  while (started_ < scripts_.size()) Arrive();
  for (bool moved = true; !testing::Test::HasFailure();) {
    bool moves = false;
    while (SettleOnce()) moves = true;
    if (Done()) break;
    if (!moves && !moved) {
      ADD_FAILURE() << "nobody has anything to do, and there are requests without an answer";
      break;
    }
    moved = moves;
    dispatcher_->OnTick(now_ms_);
  }
}

bool World::SettleOnce() {
  if (worker_ == nullptr) {
    StartWorker();
    return true;
  }
  bool moves = new_channel_ != nullptr || !worker_->channel().to_worker.empty();
  WorkerReads(true);
  if (worker_ != nullptr && state_ != ModelState::kReady) {
    SetState(ModelState::kReady);
    moves = true;
  }
  while (WorkerWorks() && worker_ != nullptr) moves = true;
  if (FrontendReads(true) > 0) moves = true;
  ClientsRead();
  return moves || worker_ == nullptr;
}

// --- Clients ------------------------------------------------------------------------------------

void World::Arrive() {
  if (started_ == scripts_.size()) return;
  const Script& script = scripts_[started_++];
  auto client = std::make_unique<Client>(script);
  if (const Status taken = dispatcher_->Start(script.rid, script.request, client.get(), now_ms_);
      !taken) {
    ADD_FAILURE() << taken.error().message;
    return;
  }
  clients_[script.rid] = std::move(client);
}

void World::ClientsRead() {
  for (auto& [rid, client] : clients_) {
    const bool slow = weather_.slow_clients && !settling_;
    if (slow && !Chance(4)) continue;
    while (!client->unread.empty()) {
      const size_t bytes = client->unread.front();
      client->unread.pop_front();
      dispatcher_->OnTaken(rid, bytes);
      if (slow && Chance(2)) break;
    }
    Check(*client);
  }
}

void World::Check(const Client& client) const {
  if (expected_ == nullptr) return;
  const auto it = expected_->find(client.script().first_rid);
  if (it == expected_->end()) return;  // poison
  for (const auto& [choice, bytes] : client.parts()) {
    const auto whole = it->second.find(choice);
    ASSERT_TRUE(whole != it->second.end()) << "request " << client.script().rid << ": " << bytes;
    EXPECT_TRUE(whole->second.starts_with(bytes))
        << "request " << client.script().rid << "\ngot  " << bytes << "\nof   " << whole->second;
  }
}

void World::Hangup() {
  for (auto& [rid, client] : clients_) {
    if (client->ended() || !Chance(3)) continue;
    dispatcher_->OnClientGone(rid);
    client->EndStream();
    client->forgiven = true;
    return Note(Happening::kHangup);
  }
}

// Their frontend has died. Some ask again.
void World::LoseClients() {
  for (auto& [rid, client] : clients_) {
    if (client->ended()) continue;
    client->EndStream();
    client->forgiven = true;
    if (client->script().poison || rid / kNextAsk >= kAsksMax || Chance(4)) continue;
    Script again = client->script();
    again.rid += kNextAsk;
    scripts_.push_back(std::move(again));
    Note(Happening::kAskedAgain);
  }
}

// --- The worker ---------------------------------------------------------------------------------

Doom World::PickDoom(bool at_start) {
  Doom doom;
  switch (Pick(0, 3)) {
    case 0:
      doom.steps = Pick(0, 6);
      break;
    case 1:
      doom.sends = Pick(0, at_start ? 3 : 12);
      break;
    case 2:
      doom.stores = Pick(0, at_start ? 8 : 40);
      break;
    case 3:
      doom.folds = Pick(0, 20);
      break;
  }
  return doom;
}

void World::StartWorker() {
  WorkerProcess::Settings settings;
  settings.epoch = ++epoch_;
  settings.sequences = Pick(1, 5);
  settings.prefill = Pick(1, 60);
  settings.pages = static_cast<shm::PageIndex>(Pick(6, kPagesMax));
  settings.arena_fd = arena_.get();
  settings.auto_detect = !weather_.typed;
  if (weather_.slow_clients) settings.credit_withheld = limits::kCreditBytes - 250;
  const Doom doom = weather_.rough && !settling_ && Chance(3) ? PickDoom(true) : Doom{};
  auto channel = std::make_shared<Channel>();
  OfferChannel(channel);
  SetState(ModelState::kStarting);
  try {
    worker_ = std::make_unique<WorkerProcess>(settings, channel, doom);
    if (worker_->store().recovery().kept > 0) Note(Happening::kPagesKept);
    // The lock has one holder.
    if (arena_ && Chance(8)) {
      EXPECT_FALSE(shm::Arena::Attach(arena_.get(), SpecOf(kPagesMax)));
    }
  } catch (const Killed& killed) {
    Note(doom.stores >= 0 ? Happening::kDeathWhileAttaching : Happening::kDeathInHello);
    EndChannel(channel.get());
    OnDeath(killed, doom);
  }
}

void World::OfferChannel(std::shared_ptr<Channel> channel) {
  auto connection = std::make_unique<Connection>(
      protocol::ChannelOffer{"m", epoch_, suspects_.suspects(), suspects_.quarantined()},
      std::move(channel));
  connection->id = dispatcher_->AddWorker(connection->offer, connection.get());
  connections_.push_back(std::move(connection));
}

template <class F>
void World::InWorker(F f) {
  if (worker_ == nullptr) return;
  const Doom doom = worker_->doom;
  try {
    f();
  } catch (const Killed& killed) {
    return OnDeath(killed, doom);
  }
  for (const RequestId rid : worker_->cleared) suspects_.OnCleared(rid);
  worker_->cleared.clear();
}

void World::WorkerReads(bool all) {
  InWorker([&] {
    if (new_channel_ != nullptr) worker_->TakeNewChannel(std::exchange(new_channel_, nullptr));
    const auto waiting = static_cast<int>(worker_->channel().to_worker.size());
    worker_->Read(static_cast<size_t>(all ? waiting : Pick(0, waiting)));
  });
}

bool World::WorkerWorks() {
  if (worker_ == nullptr) {
    if (Chance(4)) StartWorker();
    return false;
  }
  if (state_ == ModelState::kStarting && Chance(2)) {
    SetState(ModelState::kReady);
    return true;
  }
  bool works = false;
  InWorker([&] {
    if (worker_->channel().frontend_gone && worker_->generator().HasWork())
      Note(Happening::kWorkAfterFrontendDeath);
    if (worker_->generator().live() > 0 && !worker_->generator().HasWork())
      Note(Happening::kSlowClient);
    works = worker_->Work();
  });
  return works;
}

void World::NoteDeath(const Killed& killed, const Doom& doom) {
  if (killed.counts) return Note(Happening::kDeathByPoison);
  Note(doom.steps >= 0    ? Happening::kDeathInStep
       : doom.sends >= 0  ? Happening::kDeathAtSend
       : doom.stores >= 0 ? Happening::kDeathAtStore
       : doom.folds >= 0  ? Happening::kDeathInFold
                          : Happening::kDeathAtRest);
}

// What it had handed to the kernel can still be read; what waited in the process is lost with it,
// in the middle of any frame.
void World::EndChannel(Channel* channel) {
  channel->worker_gone = true;
  const auto size = static_cast<int>(channel->to_frontend.size());
  if (size > 0) Note(Happening::kDeathWithUnreadChannel);
  if (Chance(3)) channel->to_frontend.resize(static_cast<size_t>(Pick(0, size)));
}

// It is reaped: the manifest is read, and all that it told the supervisor.
void World::OnDeath(const Killed& killed, const Doom& doom) {
  NoteDeath(killed, doom);
  ++deaths_in_a_row_;
  if (worker_ != nullptr) {
    if (worker_->has_spoken())
      deaths_in_a_row_ = 0;
    else
      Note(Happening::kDeathBeforeItsFirstAnswer);
    if (worker_->is_resuming()) Note(Happening::kDeathInResume);
    if (worker_->is_cancelling()) Note(Happening::kWorkerDeathWhileCancelling);
    if (worker_->tokens_resumed() > 0) Note(Happening::kResumed);
    for (const RequestId rid : worker_->cleared) suspects_.OnCleared(rid);
    EndChannel(&worker_->channel());
  }
  if (deaths_in_a_row_ == 3) Note(Happening::kThreeDeathsInARow);
  if (killed.counts && suspects_.OnDeath(killed.step_rids) != 0) Note(Happening::kQuarantined);
  if (new_channel_ != nullptr) {
    Note(Happening::kWorkerDeathBeforeItLooked);
    EndChannel(new_channel_.get());
    new_channel_.reset();
  }
  worker_.reset();
  // The frontend may hear of it by the roster first, by the end of the channel first, or late.
  if (Chance(2)) SetState(ModelState::kBackoff);
}

// --- The frontend -------------------------------------------------------------------------------

void World::SetState(ModelState state) {
  if (state_ == state) return;
  state_ = state;
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  roster.models[0].state = state;
  models_.Apply(roster);
  dispatcher_->OnRoster(now_ms_);
}

void World::StartFrontend() {
  dispatcher_ = std::make_unique<frontend::Dispatcher>(&settings_, &models_);
  order_ = {};
  const ModelState now = std::exchange(state_, ModelState::kFailed);
  SetState(now == ModelState::kFailed ? ModelState::kStarting : now);
}

void World::KillFrontend() {
  Note(Happening::kFrontendDeath);
  LoseClients();
  for (const auto& connection : connections_) connection->channel->frontend_gone = true;
  connections_.clear();
  StartFrontend();
  if (worker_ == nullptr) return Note(Happening::kFrontendDeathWithoutWorker);
  if (new_channel_ != nullptr) Note(Happening::kTwoFrontendsBeforeTheWorkerLooked);
  // The worker will see it at once, or after some more work.
  new_channel_ = std::make_shared<Channel>();
  OfferChannel(new_channel_);
  if (Chance(3)) worker_->doom = {.stores = Pick(0, 3)};
  if (Chance(8)) KillFrontend();
}

// With it goes everything; the arena stays if it has a name.
void World::KillSupervisor() {
  Note(Happening::kSupervisorDeath);
  LoseClients();
  connections_.clear();
  new_channel_.reset();
  worker_.reset();
  suspects_ = {};
  epoch_ = 0;
  if (Chance(3)) {
    arena_ = NewArena();
    Note(Happening::kArenaGone);
  } else {
    Note(Happening::kArenaTakenOver);
  }
  state_ = ModelState::kFailed;
  StartFrontend();
  StartWorker();
}

size_t World::FrontendReads(bool all) {
  size_t frames = 0;
  for (size_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = *connections_[i];
    std::string& waiting = connection.channel->to_frontend;
    const auto bytes =
        all ? waiting.size() : static_cast<size_t>(Pick(0, static_cast<int>(waiting.size())));
    connection.reader.Append(std::string_view(waiting).substr(0, bytes));
    waiting.erase(0, bytes);
    while (const auto frame = connection.reader.Next().value()) {
      ++frames;
      order_.Check(*frame);
      const Status status = dispatcher_->OnFrame(connection.id, *frame, now_ms_);
      EXPECT_TRUE(status) << status.error().message;
    }
    if (connection.channel->worker_gone && waiting.empty()) {
      if (connection.reader.pending_bytes() > 0) Note(Happening::kTornFrame);
      dispatcher_->OnWorkerGone(connection.id, now_ms_);
      connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i--));
      ++frames;
    }
  }
  for (auto& [rid, client] : clients_) Check(*client);
  return frames;
}

}  // namespace perdure::sim
