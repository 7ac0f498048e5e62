// What kernels use of a GPU beyond plain C++, once as PTX for NVRTC (no CUDA header is needed) and once, in the
// emulator's emulate.h, for a CPU. Kernels include this alone.
#pragma once
