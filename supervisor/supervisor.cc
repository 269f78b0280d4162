#include "supervisor/supervisor.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/folder_lock.h"
#include "base/limits.h"
#include "base/listen.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/private_folder.h"
#include "base/processors.h"
#include "base/random.h"
#include "protocol/heritage.h"
#include "shm/arena_segment.h"
#include "supervisor/control_server.h"
#include "supervisor/event_loop.h"
#include "supervisor/frontend_child.h"
#include "supervisor/log_file.h"
#include "supervisor/model_keeper.h"
#include "supervisor/model_worker.h"
#include "supervisor/proc.h"
#include "supervisor/report.h"
#include "supervisor/service_manager.h"
#include "supervisor/spawn.h"

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;

class Supervisor {
 public:
  Supervisor(Config config, ConfigFlags flags, SupervisorOptions options, EventLoop loop)
      : config_(std::move(config)),
        flags_(std::move(flags)),
        options_(std::move(options)),
        loop_(std::move(loop)),
        manager_(options_.env) {}

  // What can fail before anything was started.
  Status Open();
  void Run();

 private:
  enum class Stage {
    kRunning,
    kEndsSoon,          // all is served as before; /ready tells load balancers to look elsewhere
    kDrainingFrontend,  // running answers are finished
    kStoppingWorkers,
  };

  Timings CurrentTimings() const;
  protocol::FrontendSettings CurrentFrontendSettings() const;
  Status OpenSignals();
  void OnSignal();
  void ReopenLog();
  bool serves() const { return stage_ == Stage::kRunning || stage_ == Stage::kEndsSoon; }
  void BeginStop(std::string_view why, bool without_delay = false);
  void BeginDrain();
  void TellStopping(std::string_view status);
  void AdvanceStop();
  bool AllGone() const;
  Result<std::vector<std::string>> Reload(std::vector<std::string>* warnings);
  // The answer for the control socket.
  std::string ReloadAndLog();
  void ReloadModels(std::vector<std::string>* changes);
  void SetMemory();
  void SampleServices();
  void AddModel(ModelKeeper::Models* models, const ModelConfig& config);
  // The answers for the control socket.
  std::string ReplaceWorker(const std::string& name);
  std::string UnloadModel(const std::string& name);
  std::string WithModel(const std::string& name,
                        const std::function<std::string(ModelWorker&)>& work);
  std::string BackUp(const ControlRequest& request, UniqueFd to);
  ControlServer::Answer OnControl(std::string_view line, UniqueFd* fd);
  ReportInputs Inputs() const;
  protocol::Roster CurrentRoster() const;
  void OfferChannel(ModelWorker& model);
  void OfferChannels();
  void AnnounceReadiness();
  void TellManager();
  void ForgetStoppedModels();
  void RemoveForgottenArenas();
  int TimeoutMs(int64_t now_ms) const;
  void OnTime(int64_t now_ms);

  Config config_;
  ConfigFlags flags_;
  SupervisorOptions options_;
  EventLoop loop_;
  ServiceManager manager_;
  const int64_t started_ms_ = MonotonicMs();
  // Whoever may use the control socket may use /admin, whatever keys there are.
  const std::string admin_token_ = RandomId("admin_");
  UniqueFd runtime_lock_, state_lock_;
  LogFile log_file_;
  Listener listener_;
  UniqueFd signals_;
  EventLoop::Token signal_watch_ = 0;
  ModelWorker::Context worker_context_;
  FrontendChild::Context frontend_context_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<FrontendChild> frontend_;
  ModelKeeper::Models models_;  // in the order of the config
  ModelKeeper keeper_;
  MemoryBudgetFacts memory_;
  Stage stage_ = Stage::kRunning;
  int64_t drain_at_ms_ = 0;  // of kEndsSoon
  bool end_now_ = false;
  bool roster_changed_ = true;
  std::string announced_;
  int64_t next_sample_ms_ = 0;
};

Timings Supervisor::CurrentTimings() const {
  Timings timings = TimingsOf(config_);
  if (options_.adjust_timings) options_.adjust_timings(timings);
  return timings;
}

protocol::FrontendSettings Supervisor::CurrentFrontendSettings() const {
  protocol::FrontendSettings settings =
      FrontendSettingsOf(config_, listener_.address, listener_.port);
  settings.admin_token = admin_token_;
  return settings;
}

Status Supervisor::OpenSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&set, signal);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return ErrFromErrno("cannot block signals");
  signal(SIGPIPE, SIG_IGN);
  signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return ErrFromErrno("cannot watch signals");
  ASSIGN_OR_RETURN(signal_watch_,
                   loop_.Add(signals_.get(), EPOLLIN, [this](uint32_t) { OnSignal(); }));
  return {};
}

Status Supervisor::Open() {
  RETURN_IF_ERROR(PrepareFolder(config_.runtime_dir, "runtime folder"));
  ASSIGN_OR_RETURN(runtime_lock_, LockFolder(config_.runtime_dir, "--runtime-dir"));
  RETURN_IF_ERROR(PrepareFolder(config_.state_dir, "state folder"));
  // Arenas are called after it. It may be the runtime folder, too.
  std::error_code error;
  if (!fs::equivalent(config_.runtime_dir, config_.state_dir, error)) {
    ASSIGN_OR_RETURN(state_lock_, LockFolder(config_.state_dir, "--state-dir"));
  }
  if (!config_.log_file.empty()) {
    LogInfo("the log goes to {}", config_.log_file.string());
    RETURN_IF_ERROR(log_file_.Use(config_.log_file));
  }
  ASSIGN_OR_RETURN(listener_, ListenTcp(config_.host, config_.port));
  RETURN_IF_ERROR(OpenSignals());
  ASSIGN_OR_RETURN(UniqueFd control, ListenUnix(config_.runtime_dir / "control.sock"));
  ASSIGN_OR_RETURN(control_, ControlServer::Create(loop_, std::move(control),
                                                   [this](std::string_view line, UniqueFd* fd) {
                                                     return OnControl(line, fd);
                                                   }));

  worker_context_.places = hub::PlacesOf(config_, options_.env);
  const fs::path programs =
      options_.program_dir.empty() ? worker_context_.places.executable_dir : options_.program_dir;
  for (const char* name : {"perdure-worker", "perdure-frontend"}) {
    if (access((programs / name).c_str(), X_OK) != 0)
      return ErrFromErrno(fmt::format("cannot use {}, which belongs beside this program",
                                      (programs / name).string()));
  }
  const std::string instance = shm::InstanceName(config_.state_dir);
  worker_context_.program = programs / "perdure-worker";
  worker_context_.instance = instance;
  worker_context_.log_level = std::string(LogLevelName(config_.log_level));
  worker_context_.offer = [this](protocol::ChannelOffer offer, UniqueFd fd) {
    frontend_->QueueOffer(std::move(offer), std::move(fd));
  };
  worker_context_.wants_channel = [this](const std::string& name) {
    for (const auto& model : models_) {
      if (model->name() == name) OfferChannel(*model);
    }
  };
  worker_context_.changed = [this] { roster_changed_ = true; };
  frontend_context_.program = programs / "perdure-frontend";
  frontend_context_.instance = instance;
  frontend_context_.listen_fd = listener_.fd.get();
  frontend_context_.roster = [this] { return CurrentRoster(); };
  frontend_context_.wants_channels = [this] { OfferChannels(); };
  frontend_context_.worker_misused = [this](const protocol::ChannelBroken& broken) {
    for (const auto& model : models_) {
      if (model->name() == broken.model) model->OnChannelBroken(broken.epoch, broken.reason);
    }
  };
  frontend_context_.demand = [this](const protocol::Demand& demand) {
    keeper_.OnDemand(demand, models_, MonotonicMs());
  };
  frontend_context_.memory = [this] { return MemoryText(Inputs()); };
  frontend_context_.changed = [this] { roster_changed_ = true; };
  frontend_ = std::make_unique<FrontendChild>(loop_, frontend_context_, CurrentFrontendSettings(),
                                              CurrentTimings());
  SetMemory();
  for (const ModelConfig& model : config_.models) AddModel(&models_, model);
  return {};
}

void Supervisor::SetMemory() {
  const MemoryState memory = ReadMemoryState();
  worker_context_.memory_capacity = memory.capacity;
  worker_context_.memory_budget = MemoryBudget(config_.memory_max, worker_context_.memory_capacity);
  memory_.capacity_bytes = worker_context_.memory_capacity;
  memory_.is_limited = memory.is_limited;
  memory_.is_configured = config_.memory_max > 0;
  memory_.budget_bytes = worker_context_.memory_budget;
  SampleServices();
}

// What supervisor and frontend take is not for models.
void Supervisor::SampleServices() {
  uint64_t bytes = 0;
  for (const int pid : {static_cast<int>(getpid()), frontend_->pid()}) {
    if (const auto use = pid > 0 ? ReadMemoryUse(pid) : std::nullopt) bytes += use->own_bytes;
  }
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  memory_.service_bytes = std::max(limits::kServiceBytes, (bytes + kMiB - 1) / kMiB * kMiB);
  const uint64_t budget = memory_.budget_bytes;
  keeper_.SetLimits({budget > memory_.service_bytes ? budget - memory_.service_bytes : 0,
                     int64_t{1000} * config_.residency_least_s});
}

void Supervisor::AddModel(ModelKeeper::Models* models, const ModelConfig& config) {
  models->push_back(std::make_unique<ModelWorker>(
      loop_, worker_context_, WorkerSettingsOf(config_, config), CurrentTimings()));
  models->back()->SetWantsPreload(config.preload || config.pinned);
}

void Supervisor::Run() {
  LogInfo("perdure {} serves {} (runtime folder {})", PERDURE_VERSION, listener_.Url(),
          config_.runtime_dir.string());
  RemoveForgottenArenas();
  frontend_->Run();
  while (!end_now_) {
    const int64_t now_ms = MonotonicMs();
    OnTime(now_ms);
    if (stage_ != Stage::kRunning) {
      AdvanceStop();
      if (AllGone()) break;
    }
    ForgetStoppedModels();
    if (serves()) keeper_.Keep(models_, now_ms);
    // However much changed in this round: one roster.
    if (std::exchange(roster_changed_, false)) {
      frontend_->QueueRoster();
      AnnounceReadiness();
    }
    loop_.Wait(TimeoutMs(MonotonicMs()));
  }
  for (const auto& model : models_) model->DropArena();
  LogInfo("the service has ended after {:.1f} s",
          static_cast<double>(MonotonicMs() - started_ms_) / 1000.0);
}

int Supervisor::TimeoutMs(int64_t now_ms) const {
  int64_t first = next_sample_ms_;
  const auto consider = [&](const std::optional<int64_t>& deadline) {
    if (deadline) first = std::min(first, *deadline);
  };
  consider(control_->deadline_ms());
  consider(manager_.deadline_ms());
  consider(frontend_->deadline_ms());
  if (serves()) consider(keeper_.deadline_ms());
  if (stage_ == Stage::kEndsSoon) consider(drain_at_ms_);
  for (const auto& model : models_) consider(model->deadline_ms());
  return static_cast<int>(std::clamp<int64_t>(first - now_ms, 0, INT_MAX));
}

void Supervisor::OnTime(int64_t now_ms) {
  control_->OnTime(now_ms);
  manager_.OnTime(now_ms);
  frontend_->OnTime(now_ms);
  for (const auto& model : models_) model->OnTime(now_ms);
  if (stage_ == Stage::kEndsSoon && now_ms >= drain_at_ms_) BeginDrain();
  if (now_ms < next_sample_ms_) return;
  next_sample_ms_ = now_ms + CurrentTimings().health_sample_ms;
  keeper_.SetProcessors(UsableProcessors());  // a control group's quota may have changed
  frontend_->SampleHealth(now_ms);
  SampleServices();
  std::vector<int> own = {frontend_->pid()};
  for (const auto& model : models_) own.push_back(model->pid());
  ReapAdopted(own);
  for (const auto& model : models_) {
    model->SampleHealth(now_ms);
    model->SampleMemory();
    // The bytes loaded and the seconds to wait are part of the roster.
    if (model->state() != ModelState::kReady && model->state() != ModelState::kStopped)
      roster_changed_ = true;
  }
}

void Supervisor::OnSignal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGHUP) {
      ReloadAndLog();
    } else if (info.ssi_signo == SIGUSR1) {
      ReopenLog();
    } else if (stage_ == Stage::kRunning) {
      // Who presses Ctrl-C waits in front of a terminal.
      const bool is_interrupt = info.ssi_signo == SIGINT;
      BeginStop(is_interrupt ? "SIGINT" : "SIGTERM", is_interrupt);
    } else {
      LogWarning("a second signal: the service ends at once");
      end_now_ = true;
    }
  }
}

void Supervisor::ReopenLog() {
  if (log_file_.path().empty())
    return LogInfo("SIGUSR1: the log goes to standard error; server.log_file names a file");
  if (const Status status = log_file_.Reopen(); !status)
    return LogError("{}: the log goes on where it was", status.error().message);
  LogInfo("SIGUSR1: the log goes on here");
}

void Supervisor::BeginStop(std::string_view why, bool without_delay) {
  if (stage_ != Stage::kRunning) return;
  const int delay_s = without_delay ? 0 : config_.drain_delay_s;
  LogInfo("{}: {}running answers have {} s to finish", why,
          delay_s > 0 ? fmt::format("all is served for {} s more, then ", delay_s) : "",
          config_.drain_timeout_s);
  if (delay_s == 0) return BeginDrain();
  stage_ = Stage::kEndsSoon;
  drain_at_ms_ = MonotonicMs() + int64_t{1000} * delay_s;
  roster_changed_ = true;
  TellStopping("all is served until load balancers look elsewhere");
}

void Supervisor::BeginDrain() {
  stage_ = Stage::kDrainingFrontend;
  roster_changed_ = true;
  TellStopping("running answers are finished");
  const Timings timings = CurrentTimings();
  frontend_->Stop(timings.drain_ms, timings.drain_grace_ms);
}

// With the time that the rest may take, so that nobody's own limit ends it before.
void Supervisor::TellStopping(std::string_view status) {
  const Timings timings = CurrentTimings();
  const int64_t delay_ms =
      stage_ == Stage::kEndsSoon ? std::max<int64_t>(0, drain_at_ms_ - MonotonicMs()) : 0;
  manager_.TellStopping(
      status, delay_ms + timings.drain_ms + timings.drain_grace_ms + 2 * timings.stop_grace_ms);
}

void Supervisor::AdvanceStop() {
  if (stage_ != Stage::kDrainingFrontend) return;
  // Nobody is left who waits for an answer.
  if (frontend_->alive() && !frontend_->drained()) return;
  stage_ = Stage::kStoppingWorkers;
  for (const auto& model : models_) model->Stop(0, CurrentTimings().stop_grace_ms);
}

bool Supervisor::AllGone() const {
  return stage_ == Stage::kStoppingWorkers && !frontend_->alive() &&
         std::none_of(models_.begin(), models_.end(), [](const auto& m) { return m->alive(); });
}

// Of a service that was killed, whose configuration had models that this one's has not.
void Supervisor::RemoveForgottenArenas() {
  const std::string& instance = worker_context_.instance;
  for (const shm::OrphanedArena& orphan : shm::ListOrphanedArenas()) {
    if (!orphan.name.starts_with(shm::ArenaName(instance, ""))) continue;
    if (std::any_of(models_.begin(), models_.end(), [&](const auto& model) {
          return shm::ArenaName(instance, model->name()) == orphan.name;
        }))
      continue;
    LogInfo("removing {}: its model is no longer configured", shm::ArenaPath(orphan.name));
    shm::RemoveArena(orphan.name);
  }
}

void Supervisor::ForgetStoppedModels() {
  const size_t before = models_.size();
  std::erase_if(models_, [this](const auto& model) {
    if (!model->is_retired() || model->alive() || !serves()) return false;
    model->DropArena();
    return true;
  });
  if (models_.size() != before) roster_changed_ = true;
}

Result<std::vector<std::string>> Supervisor::Reload(std::vector<std::string>* warnings) {
  if (stage_ != Stage::kRunning)
    return Err(ErrorCode::shutting_down, "the service is stopping: nothing is read again");
  ASSIGN_OR_RETURN(Config config, LoadConfig(flags_, options_.env, warnings));
  const auto needs_restart = [&](bool differs, std::string_view what) {
    if (differs)
      warnings->push_back(fmt::format("{} cannot change while the service runs: restart it", what));
  };
  needs_restart(config.host != config_.host || config.port != config_.port, "host and port");
  needs_restart(config.runtime_dir != config_.runtime_dir, "the runtime folder");
  needs_restart(config.state_dir != config_.state_dir, "the state folder");
  config.host = config_.host;
  config.port = config_.port;
  config.runtime_dir = config_.runtime_dir;
  config.state_dir = config_.state_dir;

  std::vector<std::string> changes;
  if (config.log_file != config_.log_file) {
    if (const Status status = log_file_.Use(config.log_file)) {
      changes.push_back("the log's file");
    } else {
      warnings->push_back(status.error().message + ": the log goes on where it was");
      config.log_file = config_.log_file;
    }
  }
  if (config.log_level != config_.log_level)
    changes.push_back(fmt::format("log level {}", LogLevelName(config.log_level)));
  config_ = std::move(config);
  SetLogLevel(config_.log_level);
  worker_context_.log_level = std::string(LogLevelName(config_.log_level));
  worker_context_.places.cache_dir = config_.model_cache_dir;
  SetMemory();
  frontend_->Reload(CurrentFrontendSettings(), CurrentTimings());
  ReloadModels(&changes);
  roster_changed_ = true;
  return changes;
}

void Supervisor::ReloadModels(std::vector<std::string>* changes) {
  const Timings timings = CurrentTimings();
  std::vector<std::unique_ptr<ModelWorker>> models;
  // First the list, then what it means: starting a worker sends the roster of a whole list.
  for (const ModelConfig& wanted : config_.models) {
    const auto found = std::find_if(models_.begin(), models_.end(), [&](const auto& m) {
      return m != nullptr && m->name() == wanted.name;
    });
    if (found != models_.end()) {
      models.push_back(std::move(*found));
    } else {
      AddModel(&models, wanted);
      changes->push_back(fmt::format("{} is known", models.back()->who()));
    }
  }
  std::erase(models_, nullptr);
  for (auto& unwanted : models_) models.push_back(std::move(unwanted));
  models_ = std::move(models);

  for (size_t i = 0; i < models_.size(); ++i) {
    ModelWorker& model = *models_[i];
    if (i >= config_.models.size()) {
      if (model.is_retired()) continue;  // stops already
      model.Retire(timings.drain_ms, timings.drain_grace_ms);
      changes->push_back(fmt::format("{} is stopped", model.who()));
    } else {
      std::string change = model.Reload(WorkerSettingsOf(config_, config_.models[i]), timings);
      if (!change.empty()) changes->push_back(std::move(change));
    }
  }
}

std::string Supervisor::ReloadAndLog() {
  std::vector<std::string> warnings;
  manager_.TellReloading(MonotonicUs());
  const auto changes = Reload(&warnings);
  manager_.TellReloaded();
  for (const std::string& warning : warnings) LogWarning("{}", warning);
  if (!changes) {
    LogError("the config was not read again, all stays as it was: {}", changes.error().message);
    return ErrorReport(changes.error().message);
  }
  LogInfo("the config was read again: {}", changes->empty()
                                               ? "no worker is affected"
                                               : fmt::format("{}", fmt::join(*changes, "; ")));
  return OkReport(*changes, warnings);
}

ControlServer::Answer Supervisor::OnControl(std::string_view line, UniqueFd* fd) {
  const auto request = ParseControlLine(line);
  if (!request) return {ErrorReport(request.error().message)};
  if (request->op == "ps") return {PsReport(Inputs())};
  if (request->op == "admin") return {AdminReport(listener_, admin_token_)};
  if (request->op == "stop") {
    if (request->model) return {UnloadModel(*request->model)};
    BeginStop("asked to stop");
    return {OkReport({}, {}), true};
  }
  if (request->op == "reload")
    return {request->model ? ReplaceWorker(*request->model) : ReloadAndLog()};
  if (request->op == "backup") return {BackUp(*request, std::move(*fd))};
  return {ErrorReport(fmt::format("unknown op \"{}\": ps, reload, stop, admin and backup are known",
                                  request->op.substr(0, limits::kModelNameBytesMax)))};
}

std::string Supervisor::ReplaceWorker(const std::string& name) {
  return WithModel(name, [](ModelWorker& model) {
    if (!model.wanted())
      return fmt::format("{} is not loaded, the next request starts a new process", model.who());
    model.Replace();
    return fmt::format("{} is replaced, its streams go on", model.who());
  });
}

std::string Supervisor::UnloadModel(const std::string& name) {
  return WithModel(name, [](ModelWorker& model) {
    if (!model.wanted()) return fmt::format("{} is not loaded", model.who());
    model.Unload();
    return fmt::format("{} is unloaded; the next request loads it again", model.who());
  });
}

std::string Supervisor::WithModel(const std::string& name,
                                  const std::function<std::string(ModelWorker&)>& work) {
  if (stage_ != Stage::kRunning) return ErrorReport("the service is stopping");
  std::string names;
  for (const auto& model : models_) {
    if (model->name() == name) {
      const std::string done = work(*model);
      LogInfo("{}, as asked", done);
      return OkReport({done}, {});
    }
    names += (names.empty() ? "" : ", ") + model->name();
  }
  return ErrorReport(fmt::format("no model is called \"{}\"; there are: {}",
                                 name.substr(0, limits::kModelNameBytesMax), names));
}

std::string Supervisor::BackUp(const ControlRequest& request, UniqueFd to) {
  if (!to) return ErrorReport("a backup wants a socket to go to");
  for (const auto& model : models_) {
    if (model->name() != request.model) continue;
    const Status begun = model->BackUp(std::move(to), request.kv);
    return begun ? OkReport({}, {}) : ErrorReport(begun.error().message);
  }
  return ErrorReport("this model does not run");
}

ReportInputs Supervisor::Inputs() const {
  ReportInputs inputs;
  inputs.started_ms = started_ms_;
  inputs.draining = stage_ != Stage::kRunning;
  inputs.url = listener_.Url();
  inputs.frontend = frontend_.get();
  for (const auto& model : models_) inputs.models.push_back(model.get());
  inputs.memory = memory_;
  return inputs;
}

protocol::Roster Supervisor::CurrentRoster() const {
  protocol::Roster roster;
  const int64_t now_ms = MonotonicMs();
  for (const auto& model : models_) roster.models.push_back(model->Entry(now_ms));
  roster.draining = !serves();
  roster.ends_soon = stage_ == Stage::kEndsSoon;
  return roster;
}

void Supervisor::OfferChannel(ModelWorker& model) {
  if (model.pid() == 0 || frontend_->HasOffer(model.name(), model.epoch())) return;
  auto pair = protocol::MakeChannelPair();
  if (!pair) {
    LogError("{} gets no channel to the frontend: {}", model.who(), pair.error().message);
    return;
  }
  frontend_->QueueOffer(model.Offer(), std::move(pair->a));
  model.QueueNewChannel(std::move(pair->b));
}

void Supervisor::OfferChannels() {
  for (const auto& model : models_) OfferChannel(*model);
}

// As much as one line holds: what is loaded, what will be when it is asked for, what is wrong.
void Supervisor::TellManager() {
  std::string loaded, others;
  bool is_ready = false;
  for (const auto& model : models_) {
    const ModelState state = model->state();
    is_ready = is_ready || state == ModelState::kReady || state == ModelState::kStopped;
    if (state == ModelState::kReady)
      loaded += (loaded.empty() ? "" : ", ") + model->name();
    else
      others += fmt::format(
          "{}{} {}", others.empty() ? "" : ", ", model->name(),
          state == ModelState::kStopped ? "on demand" : protocol::ModelStateName(state));
  }
  std::string status = fmt::format("{}: {}", listener_.Url(), loaded.empty() ? "-" : loaded);
  if (!others.empty()) status += "; " + others;
  manager_.Tell(status, is_ready);
}

// One line when everything serves, and another one whenever that sentence changes.
void Supervisor::AnnounceReadiness() {
  if (stage_ != Stage::kRunning || frontend_->state() != ModelState::kReady) return;
  TellManager();
  std::string served, not_served;
  for (const auto& model : models_) {
    switch (model->state()) {
      case ModelState::kReady:
      case ModelState::kStopped:  // comes when it is asked for
        served += (served.empty() ? "" : ", ") + model->name();
        break;
      case ModelState::kFailed:
        not_served += fmt::format("; not {}: {}", model->name(), model->reason());
        break;
      default:
        return;  // not settled
    }
  }
  std::string line = fmt::format("ready: {}, models: {}{}", listener_.Url(),
                                 served.empty() ? "none" : served, not_served);
  if (line == announced_) return;
  announced_ = std::move(line);
  LogInfo("{}", announced_);
}

}  // namespace

int RunSupervisor(const Config& config, const ConfigFlags& flags,
                  const SupervisorOptions& options) {
  auto loop = EventLoop::Create();
  if (!loop) {
    LogError("{}", loop.error().message);
    return protocol::kExitSystem;
  }
  Supervisor supervisor(config, flags, options, std::move(*loop));
  if (Status opened = supervisor.Open(); !opened) {
    LogError("{}", opened.error().message);
    return protocol::kExitSystem;
  }
  supervisor.Run();
  return protocol::kExitOk;
}

}  // namespace perdure::supervisor
