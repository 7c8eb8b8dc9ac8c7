#include "pool.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tamis {
namespace {

inline void breathe() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
void sleep_while(std::atomic<int>& value, int old) {
  while (value.load(std::memory_order_acquire) == old)
    syscall(SYS_futex, reinterpret_cast<int*>(&value), FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
}
void wake_all(std::atomic<int>& value) {
  syscall(SYS_futex, reinterpret_cast<int*>(&value), FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}
#else
std::mutex mutex;
std::condition_variable condition;
void sleep_while(std::atomic<int>& value, int old) {
  std::unique_lock<std::mutex> lock(mutex);
  condition.wait(lock, [&] { return value.load(std::memory_order_acquire) != old; });
}
void wake_all(std::atomic<int>&) {
  { std::lock_guard<std::mutex> lock(mutex); }
  condition.notify_all();
}
#endif

}  // namespace

Pool::Pool(int threads, int spin) : size_(threads), spin_(spin) {
  try {
    threads_.reserve(size_ - 1);
    for (int t = 1; t < size_; t++) threads_.emplace_back([this, t] { serve(t); });
  } catch (...) {
    begin(given_up);
    for (auto& thread : threads_) thread.join();
    throw;
  }
  begin(whole);
}

void Pool::begin(int how) {
  begun_.store(how, std::memory_order_seq_cst);
  wake_all(begun_);
}

Pool::~Pool() {
  stop_ = true;
  if (size_ > 1) wait_for_all(start_);
  for (auto& thread : threads_) thread.join();
}

void Pool::wait_for_all(Gate& gate) {
  if (size_ == 1) return;
  const int generation = gate.generation.load(std::memory_order_acquire);
  if (gate.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    gate.arrived.store(0, std::memory_order_relaxed);
    gate.generation.store(generation + 1, std::memory_order_seq_cst);
    if (gate.sleepers.load(std::memory_order_seq_cst) > 0) wake_all(gate.generation);
    return;
  }
  for (int i = 0; i < spin_; i++) {
    if (gate.generation.load(std::memory_order_acquire) != generation) return;
    breathe();
  }
  gate.sleepers.fetch_add(1, std::memory_order_seq_cst);
  sleep_while(gate.generation, generation);
  gate.sleepers.fetch_sub(1, std::memory_order_relaxed);
}

void Pool::run(const std::function<void(int)>& work) {
  work_ = &work;
  wait_for_all(start_);
  work(0);
  wait_for_all(meeting_);
}

void Pool::serve(int thread) {
  sleep_while(begun_, waiting);
  if (begun_ == given_up) return;
  for (;;) {
    wait_for_all(start_);
    if (stop_) return;
    (*work_)(thread);
    wait_for_all(meeting_);
  }
}

}  // namespace tamis
