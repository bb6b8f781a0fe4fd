package kvmhook

import (
	"sync/atomic"
	"unsafe"
)

// asWords is shared memory, which begins at a page, as words that processes may change at once.
func asWords(mem []byte) []atomic.Uint64 {
	return unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/8)
}
