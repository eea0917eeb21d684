#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "capi/safetensors.h"
#include "capi/status.h"

namespace marketplace::capi {
namespace {

namespace fs = std::filesystem;

// A new file beside its target; gone again unless it was renamed.
class NewFile {
 public:
  explicit NewFile(const std::string& target) : target_(target), temporary_(beside(target)) {
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0) throw error();
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (file_ >= 0) close(file_);
    if (!renamed_) unlink(temporary_.c_str());
  }

  void write(const void* data, std::size_t bytes) {
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = ::write(file_, next, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw error();
      next += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }

  void replace_target() {
    if (fsync(file_) != 0) throw error();
    if (close(std::exchange(file_, -1)) != 0) throw error();
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) throw error();
    renamed_ = true;
  }

 private:
  // A rename is atomic only within one file system.
  static std::string beside(const std::string& target) {
    const fs::path path(target);
    const std::string name = path.filename().string();
    char suffix[16];
    std::snprintf(suffix, sizeof suffix, ".%08x.tmp", std::random_device{}());
    return (path.parent_path() / ("." + name + suffix)).string();
  }
  FileError error() const { return {target_, "a file that can be written", errno}; }

  std::string target_, temporary_;
  int file_ = -1;
  bool renamed_ = false;
};

std::size_t item_bytes(const TensorToWrite& tensor) {
  return tensor.dtype == "F32" ? 4 : 8;
}

std::size_t size_bytes(const TensorToWrite& tensor) {
  return item_bytes(tensor) * static_cast<std::size_t>(element_count(tensor.shape));
}

// The library's order: by dtype from U64 over I64 to F32, so that all are aligned, then by name.
bool before(const TensorToWrite& a, const TensorToWrite& b) {
  return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
}

std::string header_of(const std::vector<TensorToWrite>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  auto header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::size_t end = offset + size_bytes(tensor);
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), before);
  const std::string header = header_of(tensors, metadata);
  const std::uint64_t length = header.size();
  NewFile file(path);
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  for (const TensorToWrite& tensor : tensors) file.write(tensor.data, size_bytes(tensor));
  file.replace_target();
}

}  // namespace marketplace::capi
