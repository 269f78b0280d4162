#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "base/limits.h"
#include "base/version.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

void AddConfig(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--config", flags->config, "Configuration file (TOML) [PERDURE_CONFIG]");
}

void AddRuntimeDir(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--runtime-dir", flags->runtime_dir,
                  "Folder of the running service's sockets [PERDURE_RUNTIME_DIR]");
}

void AddModelCacheDir(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--model-cache-dir", flags->model_cache_dir,
                  "Hugging Face cache to look models up in [HF_HUB_CACHE]");
}

void AddMaxContext(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--max-context", flags->max_context,
                  "Tokens of prompt and answer, where the configuration of a model does not say "
                  "(default: the model's own, as far as memory allows) [PERDURE_MAX_CONTEXT]");
}

void AddJson(CLI::App* app, CommandLine* line) {
  app->add_flag("--json", line->json, "Print JSON");
}

void AddStateDir(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--state-dir", flags->state_dir, "Folder of what persists [PERDURE_STATE_DIR]");
}

void AddServerFlags(CLI::App* app, ConfigFlags* flags) {
  app->add_option("--host", flags->host, "Address to listen on (default 127.0.0.1) [PERDURE_HOST]");
  app->add_option("--port", flags->port, "Port to listen on (default 8000) [PERDURE_PORT]");
  AddConfig(app, flags);
  app->add_option("--model", flags->models,
                  "Model to serve: a name from the configuration, a folder, or org/name from the "
                  "Hugging Face cache; may be repeated (default: the built-in model nano)");
  AddModelCacheDir(app, flags);
  AddMaxContext(app, flags);
  AddStateDir(app, flags);
  AddRuntimeDir(app, flags);
  app->add_option("--log-level", flags->log_level,
                  "debug, info, warning, error or off [PERDURE_LOG_LEVEL]");
  app->add_option("--log-file", flags->log_file,
                  "File to log to instead of standard error; opened again at SIGUSR1 "
                  "[PERDURE_LOG_FILE]");
  app->add_flag("--insecure", flags->insecure,
                "Allow an address beyond this machine without an API key");
}

// --- perdure conversations ---------------------------------------------------------------------

std::string CheckNotEmpty(const std::string& text) {
  return text.empty() ? "it must not be empty" : "";
}
std::string CheckTenant(const std::string& text) {
  const bool is_name =
      text.size() == 16 && text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
  return is_name ? "" : "it has 16 hexadecimal digits, as `perdure conversations tenants` tells";
}

void AddConversations(CLI::App* app, CommandLine* line) {
  ConversationsOptions* const options = &line->conversations;
  app->require_subcommand(1);
  const auto add = [&](const char* name, const char* text) {
    CLI::App* operation = app->add_subcommand(name, text);
    AddConfig(operation, &line->flags);
    AddRuntimeDir(operation, &line->flags);
    operation->callback([options, name] { options->operation = name; });
    return operation;
  };
  CLI::App* list = add("list", "The newest ones, of all tenants");
  CLI::App* show = add("show", "What was said in one");
  CLI::App* remove = add("delete", "Delete some, or all of a user, a tenant or everybody");
  CLI::App* fork = add("fork", "Copy one, up to a turn");
  CLI::App* rewind = add("rewind", "Forget what was said in one after a turn");
  CLI::App* to_file = add("export", "Write one to a file: as JSON with its tokens, or with its KV");
  CLI::App* from_file = add("import", "Take one that was exported");
  CLI::App* save = add("save", "Keep one under a name, on the service's disk");
  CLI::App* load = add("load", "Make a conversation of what was saved");
  CLI::App* saved = add("saved", "What was saved");
  CLI::App* remove_saved = add("delete-saved", "Delete what was saved");
  CLI::App* tenants = add("tenants", "Whose there are: conversations, tokens, last use");

  for (CLI::App* of_all : {list, remove, tenants})
    of_all->add_option("--model", line->model, "Of this model (default: of all that are ready)");
  remove->get_option("--model")->description(
      "Of this model (default: those with an ID of the default model, others of all)");
  for (CLI::App* of_one : {show, fork, rewind, to_file, from_file, save, load, saved, remove_saved})
    of_one->add_option("--model", line->model, "Of this model (default: the default model)");
  for (CLI::App* named : {show, fork, rewind, to_file, save})
    named
        ->add_option_function<std::string>(
            "ID", [options](const std::string& id) { options->ids = {id}; }, "The conversation")
        ->required()
        ->check(CheckNotEmpty);
  for (CLI::App* of_some :
       {list, show, remove, fork, rewind, to_file, from_file, save, load, saved, remove_saved})
    of_some->add_option("--tenant", options->tenant, "Of this tenant, 16 hexadecimal digits")
        ->check(CheckTenant);
  from_file->get_option("--tenant")
      ->description("Whose it becomes (default: those without an API key)");
  for (CLI::App* of_user : {list, remove})
    of_user->add_option("--user", options->user, "With this `user`")->check(CheckNotEmpty);
  for (CLI::App* telling :
       {list, show, remove, fork, rewind, from_file, tenants, save, load, saved, remove_saved})
    AddJson(telling, line);

  list->add_option("--limit", options->limit, "How many at most (default 20)")
      ->check(CLI::PositiveNumber);
  for (CLI::App* at_turn : {show, fork, rewind})
    at_turn->add_option("--turn", options->turn, "As it was after this turn, 1 and above")
        ->check(CLI::PositiveNumber);
  rewind->get_option("--turn")->required();
  for (CLI::App* making : {fork, from_file, load})
    making->add_option("--id", options->new_id, "What it is called")->check(CheckNotEmpty);
  fork->get_option("--id")->description("What the copy is called (default: a new id)");
  for (CLI::App* again : {from_file, load})
    again->get_option("--id")->description("What it is called (default: as it was)");
  for (CLI::App* by_name : {save, load, remove_saved})
    by_name->add_option("NAME", options->name, "Under which it is kept")
        ->required()
        ->check(CheckNotEmpty);
  save->add_flag("--kv", options->kv,
                 "With what was computed for it, so that nothing has to be again");
  save->add_flag("--force", options->force, "Also in the place of what is saved already");

  remove->add_option("ID", options->ids, "Conversations")->check(CheckNotEmpty);
  remove->add_flag("--all", options->all, "All, of all tenants");
  remove->add_flag("--yes", options->yes, "Do it, also where it is more than one");
  remove->parse_complete_callback([options] {
    const bool by_id = !options->ids.empty();
    const bool is_many = options->all || !options->user.empty();
    if (by_id && is_many)
      throw CLI::ValidationError("delete", "takes IDs, or --user and --tenant, or --all");
    if (options->all && !(options->user.empty() && options->tenant.empty()))
      throw CLI::ValidationError("--all", "is of all tenants and users: leave out the others");
    if (!by_id && !is_many && options->tenant.empty())
      throw CLI::ValidationError("delete", "needs an ID, --user, --tenant or --all");
  });

  to_file->add_option("-o,--output", options->file, "File to make (default -: stdout)");
  to_file->add_flag("--kv", options->kv,
                    "With what was computed for it, as a file for `import` and for other services");
  to_file->add_flag("--force", options->force, "Also in the place of a file that is there");
  from_file->add_option("FILE", options->file, "File that `export` made; -: stdin")->required();
}

}  // namespace

ParsedCommandLine ParseCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  CLI::App app{"Perdure serves language models on this machine's CPUs and survives their crashes."};
  app.name("perdure");
  app.set_version_flag("--version", "perdure " + std::string(kVersion));
  app.require_subcommand(1);
  app.footer("perdure COMMAND --help tells a command's options.");

  CLI::App* serve = app.add_subcommand("serve", "Run the service in the foreground");
  AddServerFlags(serve, &line.flags);

  CLI::App* ps = app.add_subcommand("ps", "Show the running service: processes, models, deaths");
  AddJson(ps, &line);
  AddConfig(ps, &line.flags);
  AddRuntimeDir(ps, &line.flags);

  CLI::App* reload = app.add_subcommand(
      "reload", "Have the running service read its config again, or replace one model's process");
  reload->add_option("MODEL", line.model,
                     "Only replace this model's process: what it computes goes on with the next");
  AddConfig(reload, &line.flags);
  AddRuntimeDir(reload, &line.flags);

  CLI::App* stop = app.add_subcommand(
      "stop", "Stop the running service, or unload one of its models until it is asked for again");
  stop->add_option("MODEL", line.model, "Only unload this model; its conversations stay");
  AddConfig(stop, &line.flags);
  AddRuntimeDir(stop, &line.flags);

  CLI::App* show = app.add_subcommand(
      "show", "Tell of a model what is known without loading it: size, context, memory");
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure a model's speed beside what this machine could do at best");
  for (CLI::App* command : {show, bench}) {
    command
        ->add_option(
            "MODEL", line.model,
            "A name from the configuration, a folder, or org/name from the Hugging Face cache")
        ->required();
  }
  CLI::App* plan = app.add_subcommand(
      "plan", "Tell what of memory models would take, and which of them fit together");
  plan->add_option("MODEL", line.models, "As for show; may be repeated (default: all configured)");
  plan->add_option("--context", line.context, "Tokens of a conversation (default 4096)")
      ->check(CLI::Range(1, limits::kContextMax));
  AddJson(plan, &line);
  AddConfig(plan, &line.flags);
  AddModelCacheDir(plan, &line.flags);
  CLI::App* list = app.add_subcommand("list", "List the models that are configured or cached");
  for (CLI::App* command : {show, list, bench}) {
    AddJson(command, &line);
    AddConfig(command, &line.flags);
    AddModelCacheDir(command, &line.flags);
  }
  AddMaxContext(show, &line.flags);
  bench
      ->add_option("--threads", line.bench.threads,
                   "Threads (default: as the service would have: the processors that the process "
                   "may use)")
      ->check(CLI::Range(1, limits::kEngineThreadsMax));
  bench
      ->add_option("--seconds", line.bench.seconds_each,
                   "How long each figure is repeated (default 1.5)")
      ->check(CLI::Range(0.0, 600.0));
  bench->add_flag("--long", line.bench.long_context,
                  "Also a prompt of 8,192 tokens and a token after it");
  bench->add_flag("--profile", line.bench.profile, "Also where the time goes, phase by phase");

  CLI::App* doctor = app.add_subcommand(
      "doctor", "Look at this machine and the configuration: what is wrong, and what to do");
  AddJson(doctor, &line);
  AddServerFlags(doctor, &line.flags);

  CLI::App* inspect = app.add_subcommand("inspect", "Look into what a service has in memory");
  inspect->require_subcommand(1);
  CLI::App* inspect_arena = inspect->add_subcommand(
      "arena", "Tell what a model's arena in shared memory holds: pages, chains, problems");
  inspect_arena
      ->add_option("NAME", line.arena, "An arena, perdure.<instance>.<model>, or a model's name")
      ->required();
  AddJson(inspect_arena, &line);

  CLI::App* cache = app.add_subcommand(
      "cache", "Look at the running service's caches of keys and values, and look after them");
  cache->require_subcommand(1);
  const std::pair<const char*, const char*> operations[] = {
      {"stats", "Type, conversations, tokens, bytes, hit rate, fragmentation"},
      {"optimize", "Drop what no conversation needs, move pages together, return memory"},
      {"clear", "Forget conversations that are idle, with all that is cached of them"},
      {"health", "Compare all that is cached with its checksums"},
      {"recommend", "What would make it better, from what was measured"},
      {"monitor", "Watch it for a while: response times, hit rate, memory efficiency"}};
  for (const auto& [name, text] : operations) {
    CLI::App* operation = cache->add_subcommand(name, text);
    operation->add_option("MODEL", line.model, "Of this model alone (default: of all)");
    AddJson(operation, &line);
    AddConfig(operation, &line.flags);
    AddRuntimeDir(operation, &line.flags);
    operation->callback([&line, name = name] { line.cache.operation = name; });
    if (std::string_view(name) == "clear")
      operation->add_flag("--unused", line.cache.unused_only,
                          "Only what belongs to no conversation that is remembered");
    if (std::string_view(name) == "monitor")
      operation->add_option("--seconds", line.cache.seconds, "For how long (default 60)")
          ->check(CLI::Range(1, limits::kMonitorSecondsMax));
  }

  CLI::App* conversations = app.add_subcommand(
      "conversations",
      "Look at conversations that the running service has stored, and manage them");
  AddConversations(conversations, &line);
  CLI::App* backup = app.add_subcommand(
      "backup", "Copy all conversations to a new folder, while the service runs or not");
  backup->add_option("DEST", line.backup.destination, "A folder that does not exist yet")
      ->required();
  backup->add_flag("--kv", line.backup.kv,
                   "Also their KV, so that they go on without being computed again");
  backup
      ->add_option("--model", line.backup.models,
                   "Of this model alone; may be repeated (default: of all)")
      ->allow_extra_args(false);  // what follows may be DEST
  CLI::App* restore =
      app.add_subcommand("restore", "Put a backup in its place, while the service does not run");
  restore->add_option("BACKUP", line.restore.backup, "A folder that `perdure backup` has made")
      ->required();
  restore->add_flag("--verify", line.restore.verify, "Only look whether all of it is whole");
  restore->add_flag("--force", line.restore.force,
                    "Move aside what is there already; nothing is deleted");
  for (CLI::App* command : {backup, restore}) {
    AddJson(command, &line);
    AddConfig(command, &line.flags);
    AddStateDir(command, &line.flags);
  }
  AddRuntimeDir(backup, &line.flags);

  CLI::App* demo = app.add_subcommand(
      "demo",
      "Start the service with the built-in model, kill and replace the model's process in the "
      "middle of answers, and compare what comes");
  AddServerFlags(demo, &line.flags);
  demo->add_option("--prompt", line.demo.prompt, "What to ask while the process is killed");
  demo->add_flag("--once", line.demo.once, "Stop the service afterwards instead of going on");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);  // prints help to stdout, errors to stderr
    return {std::nullopt, code == 0 ? protocol::kExitOk : protocol::kExitUsage};
  }
  if (*ps) line.command = Command::kPs;
  if (*reload) line.command = Command::kReload;
  if (*stop) line.command = Command::kStop;
  if (*plan) line.command = Command::kPlan;
  if (*show) line.command = Command::kShow;
  if (*list) line.command = Command::kList;
  if (*bench) line.command = Command::kBench;
  line.bench.json = line.json;
  if (*doctor) line.command = Command::kDoctor;
  if (*cache) line.command = Command::kCache;
  if (*conversations) line.command = Command::kConversations;
  if (*backup) line.command = Command::kBackup;
  if (*restore) line.command = Command::kRestore;
  if (*demo) line.command = Command::kDemo;
  if (*inspect_arena) line.command = Command::kInspectArena;
  return {std::move(line), 0};
}

}  // namespace perdure::cli
