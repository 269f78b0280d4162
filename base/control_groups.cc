#include "base/control_groups.h"

#include <fstream>
#include <string>

namespace perdure {
namespace {

namespace fs = std::filesystem;

// Where version 1 mounts a controller: systems join "cpu" and "cpuacct", and link or mount the
// single names beside them, or do not.
fs::path Version1Mount(const fs::path& root, std::string_view controllers,
                       std::string_view controller) {
  const fs::path all = root / "sys/fs/cgroup" / controllers;
  std::error_code error;
  return fs::is_directory(all, error) ? all : root / "sys/fs/cgroup" / controller;
}

// A path below our root, or nothing.
fs::path Below(const std::string& group) {
  fs::path path = fs::path(group).relative_path().lexically_normal();
  if (!path.empty() && (*path.begin() == "." || *path.begin() == "..")) path.clear();
  return path;
}

}  // namespace

void VisitControlGroups(
    const fs::path& root, std::string_view controller,
    const std::function<void(ControlGroupVersion, const fs::path& folder)>& visit) {
  // Lines are "<number>:<controllers>:<group>"; version 2 is number 0 without controllers.
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version2 = controllers.empty();
    if (!version2 &&
        ("," + controllers + ",").find("," + std::string(controller) + ",") == std::string::npos)
      continue;
    const fs::path top =
        version2 ? root / "sys/fs/cgroup" : Version1Mount(root, controllers, controller);
    for (fs::path at = Below(line.substr(second + 1));; at = at.parent_path()) {
      visit(version2 ? ControlGroupVersion::k2 : ControlGroupVersion::k1,
            at.empty() ? top : top / at);
      if (at.empty()) break;
    }
  }
}

}  // namespace perdure
