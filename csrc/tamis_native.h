// The C interface of the native kernels, as src/tamis/native.py and src/tamis/spark/engine.py bind it.
// Nothing here throws, keeps a Python object or needs one; the caller owns every buffer and checks every shape.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TAMIS_API __declspec(dllexport)
#else
#define TAMIS_API __attribute__((visibility("default")))
#endif

// Raised with every change of this file, so that a stale library beside newer Python code is noticed.
#define TAMIS_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

TAMIS_API int tamis_abi(void);

// Instruction sets are numbered from 0, the portable one, upwards. The name is NULL past the last.
TAMIS_API const char* tamis_isa_name(int isa);
TAMIS_API int tamis_isa_supported(int isa);
TAMIS_API int tamis_isa_best(void);

#ifdef __cplusplus
}
#endif
