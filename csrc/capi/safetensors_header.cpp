// The header's JSON, read event by event: nothing is stored that a header does not have, so a
// hostile one costs no more memory than its own length.
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "capi/safetensors.h"
#include "core/error.h"

namespace marketplace::capi {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostAxes = 16;
constexpr const char* kMetadata = "__metadata__";

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"k": "v"}}
class HeaderEvents final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderEvents(const std::string& op) : op_(op) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (depth_ > 1 || in_array_) refuse("a tensor's fields", "an object");
    ++depth_;
    entry_ = {};
    fields_.clear();
    offsets_.clear();
    return true;
  }
  bool key(std::string& name) override {
    if (depth_ == 1) {
      name_ = name;
      if (!names_.insert(name).second) refuse("names of their own", "'" + name + "' twice");
    } else {
      field_ = name;
      const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
      if (!metadata() && !known) refuse("dtype, shape and data_offsets", "'" + name + "'");
      if (!fields_.insert(name).second) refuse("every field once", "'" + name + "' twice");
    }
    return true;
  }
  bool end_object() override {
    if (--depth_ == 0 || metadata()) return true;
    if (fields_.size() != 3 || offsets_.size() != 2)
      refuse("dtype, shape and two data_offsets", "fewer or more in '" + name_ + "'");
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    header_.entries.emplace(name_, std::move(entry_));
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || metadata() || in_array_ || field_ == "dtype")
      refuse("a tensor's fields", "an array");
    in_array_ = true;
    return true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ != 2 || in_array_ || !(metadata() || field_ == "dtype"))
      refuse("a tensor's fields", "a string");
    (metadata() ? header_.metadata[field_] : entry_.dtype) = text;
    return true;
  }
  bool number_unsigned(std::uint64_t number) override {
    if (!in_array_ || number > INT64_MAX) refuse("a tensor's fields", std::to_string(number));
    if (field_ == "shape")
      entry_.shape.push_back(static_cast<std::int64_t>(number));
    else
      offsets_.push_back(number);
    if (entry_.shape.size() > kMostAxes || offsets_.size() > 2)
      refuse("at most 16 axes and two data_offsets", "more");
    return true;
  }
  bool number_integer(std::int64_t number) override {
    refuse("numbers of at least 0", std::to_string(number));
  }
  bool number_float(double, const std::string& text) override { refuse("integers", text); }
  bool null() override { refuse("a tensor's fields", "null"); }
  bool boolean(bool) override { refuse("a tensor's fields", "a boolean"); }
  bool binary(Json::binary_t&) override { refuse("a tensor's fields", "binary data"); }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    refuse("JSON", "something else at byte " + std::to_string(position));
  }

 private:
  bool metadata() const { return name_ == kMetadata; }
  [[noreturn]] void refuse(const std::string& expected, const std::string& received) const {
    fail(op_, "a safetensors header with " + expected, received);
  }

  std::string op_, name_, field_;
  int depth_ = 0;
  bool in_array_ = false;
  std::set<std::string> names_, fields_;
  std::vector<std::uint64_t> offsets_;
  TensorEntry entry_;
  SafetensorsHeader header_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& text, const std::string& op) {
  if (text.empty() || text[0] != '{') fail(op, "a safetensors header", "something else");
  HeaderEvents events(op);
  Json::sax_parse(text, &events);
  return events.take();
}

}  // namespace marketplace::capi
