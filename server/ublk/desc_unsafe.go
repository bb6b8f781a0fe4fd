package ublk

import (
	"sync/atomic"
	"unsafe"
)

// desc is struct ublksrv_io_desc: one request.
type desc struct {
	flags   uint32 // operation in the low byte
	sectors uint32
	start   uint64 // sector
	_       uint64 // where its data is, which we said ourselves
}

// load reads the request of a tag from the memory that the driver writes it to. The driver wrote it before the
// completion that tells of it.
func load(descs []byte, tag int) desc {
	p := (*desc)(unsafe.Pointer(&descs[tag*descSize]))
	return desc{flags: atomic.LoadUint32(&p.flags), sectors: p.sectors, start: p.start}
}

// putIOCommand writes struct ublksrv_io_cmd.
func putIOCommand(cmd *[16]byte, queue, tag uint16, res int32, addr uint64) {
	le.PutUint16(cmd[0:], queue)
	le.PutUint16(cmd[2:], tag)
	le.PutUint32(cmd[4:], uint32(res))
	le.PutUint64(cmd[8:], addr)
}
