// A whole worker, from its heritage to its exit, with a model in a folder.
#include "worker/worker.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "protocol/channel.h"
#include "shm/status.h"
#include "tests/engine/synth_model.h"
#include "tests/worker/peer.h"

namespace perdure::worker {
namespace {

using protocol::MessageType;

// Bytes as tokens, in the byte-level alphabet; the four last ids are special.
std::string TokenizerJson() {
  std::string vocab;
  int next = 0;
  for (int byte = 0; byte < 252; ++byte) {
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = plain ? byte : 256 + next++;
    char text[16];
    std::snprintf(text, sizeof text, "\\u%04x", code);
    vocab += (byte == 0 ? "\"" : ",\"") + std::string(text) + "\":" + std::to_string(byte);
  }
  const auto added = [](int id, const char* content) {
    return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + content +
           "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
           "\"special\":true}";
  };
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" +
         added(252, "<|user|>") + "," + added(253, "<|bot|>") + "," + added(254, "<|end|>") +
         R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)"
         R"("trim_offsets":false,"use_regex":false},"post_processor":null,"decoder":)"
         R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false},)"
         R"("model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{)" +
         vocab + R"(},"merges":[]}})";
}

class WorkerTest : public testing::Test {
 protected:
  WorkerTest() : status_(shm::StatusBlock::Create().value()) {
    engine::WriteSynthModel(engine::SynthSpec(), dir_.path());
    engine::WriteText(dir_.path() / "tokenizer.json", TokenizerJson());
    engine::WriteText(dir_.path() / "tokenizer_config.json", R"({"eos_token":"<|end|>"})");
    engine::WriteText(dir_.path() / "chat_template.jinja",
                      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
                      "{% if add_generation_prompt %}<|bot|>{% endif %}");
    worker_.model = "synth";
    worker_.model_dir = dir_.path().string();
    worker_.epoch = 4;
    worker_.threads = 2;
  }
  ~WorkerTest() override {
    supervisor_.reset();
    if (thread_.joinable()) thread_.join();
  }

  void Start() {
    auto control = protocol::MakeChannelPair().value();
    auto channel = protocol::MakeChannelPair().value();
    protocol::Heritage heritage;
    heritage.instance = "test";
    heritage.log_level = "warning";
    heritage.control_fd = control.b.release();
    heritage.status_fd = dup(status_.fd());
    heritage.worker = worker_;
    heritage.worker->channel_fd = channel.b.release();
    supervisor_ = std::make_unique<Peer>(std::move(control.a));
    frontend_ = std::make_unique<Peer>(std::move(channel.a));
    thread_ = std::thread([this, heritage] { exit_code_ = RunWorker(heritage); });
  }
  int Join() {
    thread_.join();
    return exit_code_;
  }
  protocol::LoadFailed ExpectLoadFails() {
    Start();
    EXPECT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->load_failed.has_value(); }));
    EXPECT_EQ(Join(), protocol::kExitBadModel);
    return supervisor_->load_failed.value_or(protocol::LoadFailed{});
  }
  static protocol::Submit Chat(protocol::RequestId rid, const std::string& content) {
    protocol::Submit submit;
    submit.rid = rid;
    submit.request.chat_json = R"({"messages":[{"role":"user","content":")" + content + R"("}]})";
    submit.request.max_tokens = 30;
    submit.request.seed = 9;
    submit.request.ignore_eos = true;
    submit.credit_bytes = limits::kCreditBytes;
    return submit;
  }

  engine::TempDir dir_;
  protocol::WorkerHeritage worker_;
  shm::StatusBlock status_;
  std::unique_ptr<Peer> supervisor_, frontend_;
  std::thread thread_;
  std::atomic<int> exit_code_{-1};
};

TEST_F(WorkerTest, LoadsServesAndDrains) {
  Start();
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->ready.has_value(); }));
  EXPECT_EQ(supervisor_->ready->architecture, "qwen3");
  EXPECT_EQ(supervisor_->ready->max_context, 4096);
  EXPECT_GT(supervisor_->ready->parameters, 0);
  EXPECT_EQ(supervisor_->ready->kv_bytes_per_token, 2u * 2 * 2 * 16 * 2);
  EXPECT_GT(status_->load_bytes_total.load(), 0u);
  EXPECT_EQ(status_->load_bytes_done.load(), status_->load_bytes_total.load());
  frontend_->Send(Chat(1, "h<|end|>"));
  ASSERT_TRUE(frontend_->Ended(1));
  ASSERT_EQ(frontend_->hellos.size(), 1u);
  EXPECT_EQ(frontend_->hellos[0].model, "synth");
  EXPECT_EQ(frontend_->hellos[0].epoch, 4u);
  // What the user wrote is text; what the template wrote is not.
  const std::vector<TokenId> expected = {252, 'h', '<', '|', 'e', 'n', 'd', '|', '>', 254, 253};
  EXPECT_EQ(frontend_->received[1].accepted->prompt_ids, expected);
  EXPECT_EQ(frontend_->received[1].choices[0].ids.size(), 30u);
  // Again, and in company: the same tokens and the same text.
  for (protocol::RequestId rid = 2; rid < 8; ++rid)
    frontend_->Send(Chat(rid, rid == 5 ? "h<|end|>" : "something else"));
  for (protocol::RequestId rid = 2; rid < 8; ++rid) ASSERT_TRUE(frontend_->Ended(rid));
  EXPECT_EQ(frontend_->received[5].choices[0].ids, frontend_->received[1].choices[0].ids);
  EXPECT_EQ(frontend_->received[5].choices[0].text, frontend_->received[1].choices[0].text);
  supervisor_->Send(protocol::Drain{60});
  EXPECT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->drained; }));
  EXPECT_EQ(Join(), protocol::kExitOk);
}

TEST_F(WorkerTest, TellsWhyAModelCannotBeServed) {
  std::filesystem::remove(dir_.path() / "model.safetensors");
  const auto failed = ExpectLoadFails();
  EXPECT_NE(failed.message.find("safetensors"), std::string::npos) << failed.message;
}

TEST_F(WorkerTest, TellsOfABrokenTokenizer) {
  engine::WriteText(dir_.path() / "tokenizer.json", "{");
  const auto failed = ExpectLoadFails();
  EXPECT_EQ(ErrorCodeFromWire(failed.error_code), ErrorCode::bad_model);
  EXPECT_NE(failed.message.find("tokenizer.json"), std::string::npos) << failed.message;
}

TEST_F(WorkerTest, AReasonIsASentenceWhateverTheFileSays) {
  std::string long_list = "[1";
  for (int i = 0; i < 100'000; ++i) long_list += ",1";
  engine::WriteText(dir_.path() / "config.json",
                    R"({"model_type": "qwen3", "hidden_size": )" + long_list + "]}");
  const auto failed = ExpectLoadFails();
  EXPECT_NE(failed.message.find("hidden_size"), std::string::npos) << failed.message;
  EXPECT_LT(failed.message.size(), 5000u);
}

TEST_F(WorkerTest, TellsOfAnUnknownInstructionSet) {
  worker_.isa = "mmx";
  EXPECT_EQ(ErrorCodeFromWire(ExpectLoadFails().error_code), ErrorCode::bad_config);
}

TEST_F(WorkerTest, TellsOfABudgetBelowAPage) {
  worker_.kv_bytes_max = 100;
  EXPECT_EQ(ErrorCodeFromWire(ExpectLoadFails().error_code), ErrorCode::out_of_memory);
}

TEST_F(WorkerTest, ServesTheContextThatIsConfigured) {
  worker_.max_context = 100;
  Start();
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->ready.has_value(); }));
  EXPECT_EQ(supervisor_->ready->max_context, 100);
}

TEST_F(WorkerTest, ServesNoMoreThanTheModelsOwnContext) {
  worker_.max_context = 5000;
  Start();
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->ready.has_value(); }));
  EXPECT_EQ(supervisor_->ready->max_context, 4096);
}

TEST_F(WorkerTest, ASmallBudgetShortensTheContext) {
  worker_.kv_bytes_max = 4 * 8192;  // pages of 32 tokens, 256 bytes each
  Start();
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->ready.has_value(); }));
  EXPECT_EQ(supervisor_->ready->max_context, 128);
  frontend_->Send(Chat(1, std::string(200, 'x')));
  ASSERT_TRUE(frontend_->ReadUntil([&] { return frontend_->received[1].failed.has_value(); }));
  EXPECT_EQ(ErrorCodeFromWire(frontend_->received[1].failed->error_code),
            ErrorCode::context_length_exceeded);
  EXPECT_NE(frontend_->received[1].failed->message.find("KV"), std::string::npos);
}

TEST_F(WorkerTest, GoesWithItsSupervisor) {
  Start();
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->ready.has_value(); }));
  supervisor_.reset();
  EXPECT_EQ(Join(), protocol::kExitOk);
}

}  // namespace
}  // namespace perdure::worker
