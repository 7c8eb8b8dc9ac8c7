// The C boundary, which no exception crosses: a caller in another language could only be ended by it.
#pragma once

#include <new>
#include <system_error>

#include "tamis_native.h"

namespace tamis {

// Runs work() and tells how it ended.
template <class Work>
int guarded(Work&& work) noexcept {
  try {
    work();
    return TAMIS_DONE;
  } catch (const std::bad_alloc&) {
    return TAMIS_NO_MEMORY;
  } catch (const std::system_error&) {
    return TAMIS_NO_THREADS;
  } catch (...) {
    return TAMIS_FAILED;
  }
}

}  // namespace tamis
