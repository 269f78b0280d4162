// The control groups that this process is in, whose limits all hold for it.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace perdure {

enum class ControlGroupVersion { k1, k2 };

// Calls `visit` with the folder of every group that holds this process for `controller` ("memory",
// "cpu"), from its own up to the root, versions 1 and 2. `root` replaces "/" in tests. Folders may
// be missing: a container sees its own group as the root, though /proc/self/cgroup may name it by
// the host's path. Thread-safe.
void VisitControlGroups(
    const std::filesystem::path& root, std::string_view controller,
    const std::function<void(ControlGroupVersion, const std::filesystem::path& folder)>& visit);

}  // namespace perdure
