// A page store beside a model of it that knows no tree, no pins and no lists, through thousands of
// random operations and re-attachments.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>

#include "base/unique_fd.h"
#include "shm/arena.h"
#include "shm/page_store.h"
#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

constexpr ArenaSpec kSpec{
    .fingerprint = 1, .numerics = 2, .shape = {{{512}}, 24, 0}, .pages_budget = 24};

struct Model {
  struct Node {
    int references = 0;
    uint64_t last_use = 0;
  };
  std::map<Word, Node> cached;
  PageIndex open = 0;
  PageIndex budget = 0;
  uint64_t clock = 0;

  static bool Continues(const Word& word, const Word& prefix) {
    return word.size() > prefix.size() && std::equal(prefix.begin(), prefix.end(), word.begin());
  }
  bool IsNeeded(const Word& word) const {
    return std::any_of(cached.begin(), cached.end(), [&](const auto& entry) {
      return entry.second.references > 0 && (entry.first == word || Continues(entry.first, word));
    });
  }
  bool HasChild(const Word& word) const {
    return std::any_of(cached.begin(), cached.end(),
                       [&](const auto& entry) { return Continues(entry.first, word); });
  }
  bool Evict() {
    const Word* oldest = nullptr;
    for (const auto& [word, node] : cached)
      if (!IsNeeded(word) && !HasChild(word) &&
          (oldest == nullptr || node.last_use < cached[*oldest].last_use))
        oldest = &word;
    if (oldest == nullptr) return false;
    cached.erase(Word(*oldest));
    return true;
  }
  bool Allocate() {
    if (open + cached.size() >= budget && !Evict()) return false;
    ++open;
    return true;
  }
  void Use(const Word& word, int references) {
    Node& node = cached[word];
    node.references += references;
    if (references > 0 || node.references == 0) node.last_use = ++clock;
  }
  // Returns the pages found.
  size_t Acquire(const Word& word) {
    for (size_t pages = 1; pages <= word.size(); ++pages) {
      const Word prefix = First(word, pages);
      if (!cached.contains(prefix)) return pages - 1;
      Use(prefix, +1);
    }
    return word.size();
  }
  PageIndex Evictable() const {
    return static_cast<PageIndex>(std::count_if(cached.begin(), cached.end(),
                                                [&](const auto& e) { return !IsNeeded(e.first); }));
  }
};

struct Sequence {
  Word word;
  std::vector<PageIndex> pages;
  std::optional<PageIndex> open;
};

class TwoStores {
 public:
  explicit TwoStores(uint64_t seed) : random_(seed), fd_(memfd_create("model", MFD_CLOEXEC)) {
    Attach();
  }

  void Step() {
    const int choice = Random(20);
    if (choice == 0 && Random(10) == 0) {
      Attach();
    } else if (choice == 1 && Random(20) == 0) {
      store_->DropUnneeded();
      while (model_.Evict()) {
      }
    } else if (choice == 2) {
      store_->ReleaseUnused();
    } else if (sequences_.size() < 5 && choice < 9) {
      Begin();
    } else if (!sequences_.empty()) {
      Sequence& sequence = sequences_[static_cast<size_t>(Random(Size()))];
      if (Random(6) == 0)
        End(&sequence);
      else
        Compute(&sequence);
    }
    Compare();
  }

 private:
  int Random(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  int Size() const { return static_cast<int>(sequences_.size()); }

  // As after a death: whatever was open or referenced is so no longer.
  void Attach() {
    store_.reset();
    sequences_.clear();
    model_.open = 0;
    for (auto& [word, node] : model_.cached) node.references = 0;
    auto arena = Arena::Attach(fd_.get(), kSpec);
    ASSERT_TRUE(arena.has_value()) << arena.error().message;
    const auto budget = static_cast<PageIndex>(8 + Random(17));
    model_.budget = budget;
    store_ = std::make_unique<PageStore>(std::move(*arena), budget);
    EXPECT_EQ(store_->recovery().kept, model_.cached.size());
    EXPECT_EQ(store_->recovery().dropped, 0u);
    store_->FinishRecovery();
    while (model_.cached.size() > budget) model_.Evict();
  }

  void Begin() {
    Sequence sequence;
    for (int i = 0; i < kWordMax; ++i) sequence.word.push_back(Random(kLetters));
    const auto bound = static_cast<size_t>(Random(kWordMax + 1));
    sequence.pages = AcquireWord(store_.get(), First(sequence.word, bound));
    ASSERT_EQ(sequence.pages.size(), model_.Acquire(First(sequence.word, bound)));
    for (size_t i = 0; i < sequence.pages.size(); ++i)
      ASSERT_TRUE(IsFilled(BytesOf(*store_, sequence.pages[i]), First(sequence.word, i + 1)));
    sequences_.push_back(std::move(sequence));
  }

  void Compute(Sequence* sequence) {
    const size_t done = sequence->pages.size();
    if (done == sequence->word.size()) return;
    if (!sequence->open) {
      sequence->open = store_->Allocate();
      ASSERT_EQ(sequence->open.has_value(), model_.Allocate());
      return;
    }
    const Word prefix = First(sequence->word, done + 1);
    Fill(BytesOf(*store_, *sequence->open), prefix);
    const PageIndex page =
        store_->Seal(*sequence->open, done == 0 ? kNoPage : sequence->pages[done - 1], {},
                     TokensOf({prefix.back()}));
    ASSERT_TRUE(IsFilled(BytesOf(*store_, page), prefix));
    ASSERT_EQ(page == *sequence->open, !model_.cached.contains(prefix));
    model_.Use(prefix, +1);
    --model_.open;
    sequence->pages.push_back(page);
    sequence->open.reset();
  }

  void End(Sequence* sequence) {
    if (sequence->open) {
      store_->Release(*sequence->open);
      --model_.open;
    }
    // In any order.
    std::vector<size_t> order(sequence->pages.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    for (const size_t i : order) {
      store_->Release(sequence->pages[i]);
      model_.Use(First(sequence->word, i + 1), -1);
    }
    sequences_.erase(sequences_.begin() + (sequence - sequences_.data()));
  }

  void Compare() {
    ASSERT_EQ(store_->cached(), model_.cached.size());
    ASSERT_EQ(store_->used(), model_.cached.size() + model_.open);
    ASSERT_EQ(store_->available(), model_.budget - store_->used() + model_.Evictable());
    const auto referenced =
        std::count_if(model_.cached.begin(), model_.cached.end(),
                      [](const auto& entry) { return entry.second.references > 0; });
    ASSERT_EQ(store_->referenced(), static_cast<size_t>(referenced) + model_.open);
    ASSERT_EQ(store_->damaged(), 0u);
  }

  std::mt19937_64 random_;
  UniqueFd fd_;
  Model model_;
  std::unique_ptr<PageStore> store_;
  std::vector<Sequence> sequences_;
};

TEST(PageStoreModel, AgreesThroughRandomOperations) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    TwoStores run(seed);
    for (int step = 0; step < 3000; ++step) {
      SCOPED_TRACE(step);
      run.Step();
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace perdure::shm
