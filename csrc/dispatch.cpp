#include "dispatch.h"

#include "tamis_native.h"

namespace tamis {

const char* isa_name(int isa) {
  static const char* const names[isa_count] = {"portable", "avx2", "avx512", "avx512_bf16"};
  return isa >= 0 && isa < isa_count ? names[isa] : nullptr;
}

bool isa_supported(int isa) {
  switch (static_cast<Isa>(isa)) {
    case Isa::portable:
      return true;
#ifdef TAMIS_HAS_AVX2
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef TAMIS_HAS_AVX512
    case Isa::avx512:
      return isa_supported(static_cast<int>(Isa::avx2)) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
#endif
#ifdef TAMIS_HAS_AVX512_BF16
    case Isa::avx512_bf16:
      return isa_supported(static_cast<int>(Isa::avx512)) && __builtin_cpu_supports("avx512bf16") &&
             __builtin_cpu_supports("avx512vnni");
#endif
    default:
      return false;
  }
}

int isa_best() {
  for (int isa = isa_count - 1; isa > 0; isa--)
    if (isa_supported(isa)) return isa;
  return 0;
}

}  // namespace tamis

extern "C" {
int tamis_abi(void) { return TAMIS_ABI; }
const char* tamis_isa_name(int isa) { return tamis::isa_name(isa); }
int tamis_isa_supported(int isa) { return tamis::isa_supported(isa) ? 1 : 0; }
int tamis_isa_best(void) { return tamis::isa_best(); }
}
