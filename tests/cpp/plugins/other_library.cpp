// A library that is no plugin.
extern "C" int other_library() {
  return 1;
}
