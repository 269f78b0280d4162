// Stores turns and pages as a worker does, as fast as it can, tells what is stored, and never ends.
// snapshot_storm_child FOLDER sync|async NEXT-PAGE SEED
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tests/power_cut/storm.h"
#include "worker/disk_persistence.h"

namespace perdure::power_cut {
namespace {

using worker::DiskPersistence;

uint32_t NumberOf(std::string_view text) {
  uint32_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

void Tell(StormReport kind, uint32_t number = 0, uint32_t more = 0) {
  const StormReportWire report{kind, number, more};
  if (write(STDOUT_FILENO, &report, sizeof report) != sizeof report) _exit(3);
}

class Storm {
 public:
  Storm(DiskPersistence::Opened opened, uint32_t next_page, uint32_t seed)
      : disk_(std::move(opened.persistence)), next_page_(next_page), random_(seed) {
    for (uint32_t slot = 0; slot < kStormConversations; ++slot) slots_[slot].conversation = slot;
    for (const snapshot::StoredConversation& found : opened.conversations) {
      const uint32_t conversation = NumberOf(std::string_view(found.id).substr(1));
      Slot& slot = slots_[conversation % kStormConversations];
      if (conversation < slot.conversation) continue;
      slot.conversation = conversation;
      slot.turns = found.turns;
    }
    for (const snapshot::StoredPage& page : opened.pages) pages_.push_back(page.chain_hash);
  }

  [[noreturn]] void Run() {
    Tell(StormReport::kOpened);
    // As when a worker goes on with a request whose turn the one before has stored, and not said
    // so.
    for (Slot& slot : slots_)
      if (slot.turns > 0 && random_() % 2 == 0) Keep(&slot);
    for (;;) {
      const uint32_t what = random_() % 16;
      if (what < 8)
        KeepTurn(&slots_[what % kStormConversations]);
      else if (what < 14)
        KeepPages(1 + random_() % 3);
      else if (!pages_.empty())
        disk_->TouchPages({{pages_[random_() % pages_.size()], random_()}});
      pollfd answers{disk_->fd(), POLLIN, 0};
      poll(&answers, 1, IsBusy() ? 1000 : 0);
      for (worker::PersistenceAnswer& answer : disk_->TakeAnswers())
        std::visit([this](auto& each) { OnAnswer(each); }, answer);
    }
  }

 private:
  struct Slot {
    uint32_t conversation = 0, turns = 0;
    bool waits = false;
  };

  bool IsBusy() const {
    bool is_busy = asked_ >= 2;
    for (const Slot& slot : slots_) is_busy = is_busy && slot.waits;
    return is_busy;
  }

  void KeepTurn(Slot* slot) {
    if (slot->waits) return;
    if (slot->turns == kStormTurns) {
      slot->conversation += kStormConversations;
      slot->turns = 0;
    }
    ++slot->turns;
    Keep(slot);
  }

  void Keep(Slot* slot) {
    slot->waits = true;
    disk_->KeepTurn({kStormOwner, StormConversation(slot->conversation), true, ""},
                    StormTurn(slot->conversation, slot->turns));
  }

  void KeepPages(uint32_t count) {
    if (asked_ >= 2) return;
    ++asked_;
    Tell(StormReport::kPagesAsked, next_page_, count);
    std::vector<worker::PageToKeep> pages;
    for (uint32_t i = 0; i < count; ++i, ++next_page_) {
      snapshot::PageWithData page = StormPage(next_page_);
      if (next_page_ >= kStormPages) Drop(next_page_ - kStormPages);
      pages_.push_back(page.page.chain_hash);
      pages.push_back({std::move(page.page), std::move(page.data)});
    }
    disk_->KeepPages(std::move(pages), {});
  }

  void Drop(uint32_t number) {
    const uint64_t hash = StormPage(number).page.chain_hash;
    std::erase(pages_, hash);
    Tell(StormReport::kDropAsked, number);
    disk_->DropPages({hash});
  }

  void OnAnswer(const worker::TurnKept& kept) {
    if (!kept.conversation) return Tell(StormReport::kNotStored);
    const uint32_t conversation = NumberOf(std::string_view(kept.conversation->id).substr(1));
    slots_[conversation % kStormConversations].waits = false;
    Tell(StormReport::kTurnStored, conversation, kept.conversation->turns);
  }
  void OnAnswer(const worker::PagesKept& kept) {
    --asked_;
    if (kept.pages.empty()) return Tell(StormReport::kNotStored);
    // Their number is the time that they were of use.
    Tell(StormReport::kPagesStored, kept.pages[0].used_unix_s - 1000,
         static_cast<uint32_t>(kept.pages.size()));
  }
  template <class Other>  // not asked for here
  void OnAnswer(const Other&) {}

  std::unique_ptr<DiskPersistence> disk_;
  uint32_t next_page_;
  std::mt19937 random_;
  std::array<Slot, kStormConversations> slots_;
  std::vector<uint64_t> pages_;
  int asked_ = 0;
};

int Run(const std::string& folder, bool sync, uint32_t next_page, uint32_t seed) {
  auto opened = DiskPersistence::Open({.dir = folder,
                                       .model = "nano",
                                       .sync = sync,
                                       .turns_bytes_max = snapshot::kFileBytesMax,
                                       .kv_bytes_max = snapshot::kFileBytesMax});
  if (!opened) {
    fmt::print(stderr, "{}\n", opened.error().message);
    return 1;
  }
  Storm(std::move(*opened), next_page, seed).Run();
}

}  // namespace
}  // namespace perdure::power_cut

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  return perdure::power_cut::Run(argv[1], std::string_view(argv[2]) == "sync",
                                 perdure::power_cut::NumberOf(argv[3]),
                                 perdure::power_cut::NumberOf(argv[4]));
}
