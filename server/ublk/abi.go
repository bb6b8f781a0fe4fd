package ublk

import "encoding/binary"

// le is the byte order of the machines that are supported.
var le = binary.LittleEndian

// Commands, as ioctl numbers: direction, size of the argument, 'u', number.
const (
	dirRead      = 2 << 30
	dirReadWrite = 3 << 30
	ctlType      = ctlSize<<16 | 'u'<<8
	ioType       = ioCmdSize<<16 | 'u'<<8

	cmdGetInfo       = dirRead | ctlType | 0x02
	cmdAdd           = dirReadWrite | ctlType | 0x04
	cmdDelete        = dirReadWrite | ctlType | 0x05
	cmdStart         = dirReadWrite | ctlType | 0x06
	cmdStop          = dirReadWrite | ctlType | 0x07
	cmdSetParams     = dirReadWrite | ctlType | 0x08
	cmdGetParams     = dirRead | ctlType | 0x09
	cmdStartRecovery = dirReadWrite | ctlType | 0x10
	cmdEndRecovery   = dirReadWrite | ctlType | 0x11
	cmdDeleteAsync   = dirRead | ctlType | 0x14
	cmdUpdateSize    = dirReadWrite | ctlType | 0x15

	cmdFetch          = dirReadWrite | ioType | 0x20
	cmdCommitAndFetch = dirReadWrite | ioType | 0x21
)

// Sizes of structures, in bytes.
const (
	ctlSize    = 32 // struct ublksrv_ctrl_cmd
	ioCmdSize  = 16 // struct ublksrv_io_cmd
	infoSize   = 64 // struct ublksrv_ctrl_dev_info
	descSize   = 24 // struct ublksrv_io_desc
	paramsSize = 60 // the part of struct ublk_params that is used: header, basic, discard
)

// Features.
const (
	featureRecovery        = 1 << 3
	featureRecoveryReissue = 1 << 4
	featureIoctlEncode     = 1 << 6
	featureUpdateSize      = 1 << 10
	featurePerIODaemon     = 1 << 13 // told by Linux 6.16 and later
)

// Requests.
const (
	opRead        = 0
	opWrite       = 1
	opFlush       = 2
	opDiscard     = 3
	opWriteZeroes = 5

	flagFUA     = 1 << 13
	flagNoUnmap = 1 << 15
)

const (
	sectorShift = 9
	newID       = 1<<32 - 1 // the kernel chooses
	noQueue     = 1<<16 - 1 // a command that is not about a queue
)

// State of a device in the kernel.
type State uint16

// The states.
const (
	StateDead    State = 0 // not started yet, or stopped
	StateLive    State = 1
	StateWaiting State = 2 // its server is gone and its requests wait (quiesced)
)

func (s State) String() string {
	switch s {
	case StateDead:
		return "dead"
	case StateLive:
		return "live"
	case StateWaiting:
		return "waiting"
	}
	return "unknown"
}

// control is struct ublksrv_ctrl_cmd.
type control struct {
	id   uint32
	addr uint64
	len  uint16
	data uint64
}

func (c *control) encode() []byte {
	b := make([]byte, ctlSize)
	le.PutUint32(b[0:], c.id)
	le.PutUint16(b[4:], noQueue)
	le.PutUint16(b[6:], c.len)
	le.PutUint64(b[8:], c.addr)
	le.PutUint64(b[16:], c.data)
	return b
}

// Info is what the kernel knows of a device.
type Info struct {
	ID         int
	Queues     int
	Depth      int // of each queue
	State      State
	PID        int // of its server, or of the last one; -1 if there was none
	Key        uint64
	maxRequest int // bytes
	features   uint64
}

func (i *Info) encode() []byte {
	b := make([]byte, infoSize)
	le.PutUint16(b[0:], uint16(i.Queues))
	le.PutUint16(b[2:], uint16(i.Depth))
	le.PutUint32(b[8:], uint32(i.maxRequest))
	le.PutUint32(b[12:], uint32(i.ID))
	le.PutUint32(b[16:], uint32(i.PID))
	le.PutUint64(b[24:], i.features)
	le.PutUint64(b[32:], i.Key)
	return b
}

// decode reads what the kernel wrote. b has infoSize bytes.
func (i *Info) decode(b []byte) {
	*i = Info{
		Queues: int(le.Uint16(b[0:])), Depth: int(le.Uint16(b[2:])), State: State(le.Uint16(b[4:])),
		maxRequest: int(le.Uint32(b[8:])), ID: int(le.Uint32(b[12:])), PID: int(int32(le.Uint32(b[16:]))),
		features: le.Uint64(b[24:]), Key: le.Uint64(b[32:]),
	}
}

// Kinds of parameters, and attributes of the basic ones.
const (
	paramBasic   = 1 << 0
	paramDiscard = 1 << 1

	attrReadOnly = 1 << 0
	attrCache    = 1 << 2 // writes need a flush to be durable
	attrFUA      = 1 << 3
)

// Block sizes, as powers of two.
const (
	logicalShift  = 9  // what images and partition tables of other servers expect
	physicalShift = 12 // the array's block
)

// maxTrim is the longest discard or write-zeroes, in sectors: the block layer counts its bytes in 32 bits.
const maxTrim = (1<<32 - 4096) >> sectorShift

// params is the part of struct ublk_params that is used.
type params struct {
	sectors    uint64
	maxSectors uint32 // of a read or write
	readOnly   bool
}

func (p *params) encode() []byte {
	b := make([]byte, paramsSize)
	attrs := uint32(attrCache | attrFUA)
	types := uint32(paramBasic | paramDiscard)
	if p.readOnly {
		attrs, types = attrReadOnly, paramBasic
	}
	le.PutUint32(b[0:], paramsSize)
	le.PutUint32(b[4:], types)
	le.PutUint32(b[8:], attrs)
	b[12], b[13], b[14], b[15] = logicalShift, physicalShift, physicalShift, physicalShift // a block is what requests should be at least, and is best
	le.PutUint32(b[16:], p.maxSectors)
	le.PutUint64(b[24:], p.sectors)
	if !p.readOnly {
		le.PutUint32(b[44:], 1<<physicalShift) // granularity
		le.PutUint32(b[48:], maxTrim)
		le.PutUint32(b[52:], maxTrim)
		le.PutUint16(b[56:], 1) // ranges in one request
	}
	return b
}

// decode reads what the kernel wrote. b has paramsSize bytes.
func (p *params) decode(b []byte) {
	*p = params{
		sectors: le.Uint64(b[24:]), maxSectors: le.Uint32(b[16:]),
		readOnly: le.Uint32(b[8:])&attrReadOnly != 0,
	}
}
