// perdure-worker: one model's engine, scheduler and caches.

#include "programs/child_main.h"
#include "worker/worker.h"

int main(int argc, char** argv) {
  return perdure::ChildMain(argc, argv, perdure::worker::RunWorker);
}
