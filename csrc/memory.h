// Zeroed memory for vectors and caches, in large pages where the system has them.
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>

namespace tamis {

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes) {
    constexpr size_t page = size_t{1} << 21;
    const size_t alignment = bytes >= page ? page : 64;
    bytes_ = (bytes + alignment - 1) / alignment * alignment;
    if (bytes_ == 0) return;
    data_ = ::operator new(bytes_, std::align_val_t(alignment));
    alignment_ = alignment;
#if defined(__linux__)
    if (bytes >= page) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
    memset(data_, 0, bytes_);
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t(alignment_));
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Memory& other) {
    void* data = data_;
    size_t bytes = bytes_, alignment = alignment_;
    data_ = other.data_, bytes_ = other.bytes_, alignment_ = other.alignment_;
    other.data_ = data, other.bytes_ = bytes, other.alignment_ = alignment;
  }
  void* data_ = nullptr;
  size_t bytes_ = 0, alignment_ = 64;
};

}  // namespace tamis
