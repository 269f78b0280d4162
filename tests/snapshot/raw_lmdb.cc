#include "tests/snapshot/raw_lmdb.h"

#include <gtest/gtest.h>
#include <lmdb.h>

namespace perdure::snapshot {
namespace {

class Raw {
 public:
  Raw(const std::filesystem::path& file, const std::string& database) {
    EXPECT_EQ(mdb_env_create(&env_), MDB_SUCCESS);
    mdb_env_set_maxdbs(env_, 16);
    mdb_env_set_mapsize(env_, size_t{64} << 20);
    EXPECT_EQ(mdb_env_open(env_, file.c_str(), MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600),
              MDB_SUCCESS);
    EXPECT_EQ(mdb_txn_begin(env_, nullptr, 0, &transaction), MDB_SUCCESS);
    EXPECT_EQ(mdb_dbi_open(transaction, database.c_str(), 0, &dbi), MDB_SUCCESS);
  }
  ~Raw() {
    EXPECT_EQ(mdb_txn_commit(transaction), MDB_SUCCESS);
    mdb_env_close(env_);
  }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;

  MDB_txn* transaction = nullptr;
  MDB_dbi dbi = 0;

 private:
  MDB_env* env_ = nullptr;
};

MDB_val ValueOf(const std::string& text) { return {text.size(), const_cast<char*>(text.data())}; }
std::string TextOf(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

}  // namespace

RawDatabase ReadRaw(const std::filesystem::path& file, const std::string& database) {
  Raw raw(file, database);
  RawDatabase all;
  MDB_cursor* cursor = nullptr;
  EXPECT_EQ(mdb_cursor_open(raw.transaction, raw.dbi, &cursor), MDB_SUCCESS);
  MDB_val key, value;
  while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS)
    all[TextOf(key)] = TextOf(value);
  mdb_cursor_close(cursor);
  return all;
}

void WriteRaw(const std::filesystem::path& file, const std::string& database,
              const std::string& key, const std::optional<std::string>& value) {
  Raw raw(file, database);
  MDB_val key_value = ValueOf(key);
  if (!value) {
    EXPECT_EQ(mdb_del(raw.transaction, raw.dbi, &key_value, nullptr), MDB_SUCCESS);
    return;
  }
  MDB_val data = ValueOf(*value);
  EXPECT_EQ(mdb_put(raw.transaction, raw.dbi, &key_value, &data, 0), MDB_SUCCESS);
}

}  // namespace perdure::snapshot
