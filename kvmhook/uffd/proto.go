package uffd

// Event is what a message is about.
type Event uint8

// Events.
const (
	EventPagefault Event = 0x12
	EventFork      Event = 0x13
	EventRemap     Event = 0x14
	EventRemove    Event = 0x15 // madvise(MADV_DONTNEED, MADV_REMOVE) and the like: the pages go
	EventUnmap     Event = 0x16
)

// Features that a descriptor may be opened with.
const (
	FeatureEventFork    = 1 << 1
	FeatureEventRemap   = 1 << 2
	FeatureEventRemove  = 1 << 3
	FeatureMissingHuge  = 1 << 4
	FeatureMissingShmem = 1 << 5
	FeatureEventUnmap   = 1 << 6
	FeaturePoison       = 1 << 14
)

// Flags of a page fault.
const (
	FaultWrite        = 1 << 0
	FaultWriteProtect = 1 << 1
	FaultMinor        = 1 << 2
)

const (
	apiVersion   = 0xAA
	modeMissing  = 1 << 0 // of UFFDIO_REGISTER
	modeDontWake = 1 << 0 // of UFFDIO_COPY and its like
)

// ioctl numbers: direction (1 write, 2 read), size of the argument, type 0xAA, number.
const (
	ioctlAPI      = 3<<30 | 24<<16 | 0xAA<<8 | 0x3F
	ioctlRegister = 3<<30 | 32<<16 | 0xAA<<8
	ioctlWake     = 2<<30 | 16<<16 | 0xAA<<8 | 0x02
	ioctlCopy     = 3<<30 | 40<<16 | 0xAA<<8 | 0x03
	ioctlZeropage = 3<<30 | 32<<16 | 0xAA<<8 | 0x04
	ioctlPoison   = 3<<30 | 32<<16 | 0xAA<<8 | 0x08
)

// messageSize of struct uffd_msg, in bytes.
const messageSize = 32
