#include "kernels.h"

#include "dispatch.h"

namespace tamis {

const Kernels* kernels(int isa) {
  if (!isa_supported(isa)) return nullptr;
  switch (static_cast<Isa>(isa)) {
#ifdef TAMIS_HAS_AVX2
    case Isa::avx2:
      return kernels_avx2();
#endif
#ifdef TAMIS_HAS_AVX512
    case Isa::avx512:
      return kernels_avx512();
#endif
#ifdef TAMIS_HAS_AVX512_BF16
    case Isa::avx512_bf16:
      return kernels_avx512_bf16();
#endif
    default:
      return kernels_portable();
  }
}

}  // namespace tamis
