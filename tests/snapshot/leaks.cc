// Where a damaged file ends a call of LMDB's in its middle, what that had just allocated has been
// told to nobody. All else is kept reachable (Abandon).
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:mdb_txn_begin\nleak:mdb_cursor_open\n";
}
