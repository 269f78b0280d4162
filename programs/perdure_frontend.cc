// perdure-frontend: the HTTP API.

#include "frontend/frontend.h"
#include "programs/child_main.h"

int main(int argc, char** argv) {
  return perdure::ChildMain(argc, argv, perdure::frontend::RunFrontend);
}
