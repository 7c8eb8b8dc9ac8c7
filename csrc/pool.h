// Threads that wait without burning a processor.
//
// A wait looks at the counter a bounded number of times, a few microseconds, and then sleeps in the kernel. Waiting
// threads that spin for longer take the processor from whoever they wait for: on a busy machine that made decoding
// several times slower than one thread (LOG.md).
#pragma once

#include <stddef.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace tamis {

class Pool {
 public:
  // Throws what std::thread throws when the system gives fewer threads; none is left behind.
  Pool(int threads, int spin);
  ~Pool();
  int size() const { return size_; }
  // work(thread) on every thread, the caller being thread 0; returns when all are done.
  void run(const std::function<void(int)>& work);
  // For work that runs: all threads meet here.
  void meet() { wait_for_all(meeting_); }

 private:
  struct alignas(64) Gate {
    std::atomic<int> arrived{0}, generation{0}, sleepers{0};
  };
  void wait_for_all(Gate& gate);
  void serve(int thread);
  void begin(int how);

  const int size_, spin_;
  Gate start_, meeting_;
  // Threads wait here until all are there: those of a pool that was never whole could not meet.
  enum { waiting, whole, given_up };
  std::atomic<int> begun_{waiting};
  const std::function<void(int)>* work_ = nullptr;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

// Rows dealt out to whoever asks: big pieces first, small ones at the end, so that all finish together.
struct alignas(64) Dealer {
  std::atomic<int> next{0};
  // The next piece [first, last) of `total`, in multiples of `grain`; false when all is dealt.
  bool deal(int total, int grain, int most, int threads, int& first, int& last) {
    int at = next.load(std::memory_order_relaxed);
    for (;;) {
      if (at >= total) return false;
      int share = (total - at) / (2 * threads) / grain * grain;
      int piece = share < grain ? grain : share > most ? most : share;
      int end = at + piece < total ? at + piece : total;
      if (next.compare_exchange_weak(at, end, std::memory_order_relaxed)) {
        first = at;
        last = end;
        return true;
      }
    }
  }
};

}  // namespace tamis
