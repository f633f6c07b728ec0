package uring

import "unsafe"

// This compiles only if the structures have the sizes of the kernel's.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(sqe{})-64]
	_ = [1]struct{}{}[unsafe.Sizeof(cqe{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(buffer{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(bufferRegistration{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(params{})-120]
	_ = [1]struct{}{}[unsafe.Sizeof(enterArgument{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(probe{})-16-8*50]
)
