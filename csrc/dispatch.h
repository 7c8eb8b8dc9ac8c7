// Which instruction sets this library was built with and this processor has.
#pragma once

namespace tamis {

// In rising order of speed. Later ones contain earlier ones.
enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3 };
constexpr int isa_count = 4;

const char* isa_name(int isa);
// Compiled in, and offered by the processor and the operating system.
bool isa_supported(int isa);
int isa_best();

}  // namespace tamis
