package qemu

// What the stream is made of, as migration/savevm.h and savevm.c of QEMU 7.2 have it.
const (
	streamMagic   = 0x5145564d // "QEVM"
	streamVersion = 3

	typeEOF           = 0x00
	typeSectionStart  = 0x01
	typeSectionPart   = 0x02
	typeSectionEnd    = 0x03
	typeSectionFull   = 0x04
	typeSubsection    = 0x05
	typeDescription   = 0x06 // of the device state, in JSON, after the end
	typeConfiguration = 0x07
	typeCommand       = 0x08
	typeFooter        = 0x7e
)

// Commands.
const (
	cmdOpenReturnPath = 1
	cmdPing           = 2
	cmdAdvise         = 3
	cmdListen         = 4
	cmdRun            = 5
	cmdDiscard        = 6
	cmdPackaged       = 7
	cmdResume         = 9
	cmdRecvBitmap     = 10
)

// Messages of the return path.
const (
	rpShut        = 1
	rpPong        = 2
	rpReqPagesID  = 3
	rpReqPages    = 4
	rpRecvBitmap  = 5
	rpResumeAck   = 6
	maxRPLength   = 512 // QEMU's own bound for the data of a message, in bytes
	resumeAckOK   = 1
	bitmapEndMark = 0x0123456789abcdef
)

// Flags of a RAM record, in the low bits of its address (migration/ram.c).
const (
	ramZero     = 0x02
	ramMemSize  = 0x04
	ramPage     = 0x08
	ramEOS      = 0x10
	ramContinue = 0x20
	ramXBZRLE   = 0x40
	ramHook     = 0x80
	ramCompress = 0x100
	ramFlush    = 0x200 // multifd's, from QEMU 8.1 on
	ramFlags    = PageSize - 1
)

const (
	ramSection        = "ram"
	ramSectionVersion = 4
	// ramSectionID is what lsad calls the RAM section in what it sends; QEMU counts its own from 0.
	ramSectionID = 0x6c736164

	capabilitiesSection = "configuration/capabilities"
	uuidSection         = "configuration/uuid"
	pageBitsSection     = "configuration/target-page-bits"
	ignoreShared        = "x-ignore-shared"
)

// PageSize of the guest in bytes: x86 has no other as far as the stream is concerned.
const PageSize = 4096

// Limits of what is believed.
const (
	maxBlocks       = 128
	maxName         = 255
	maxRAM          = 64 << 40  // bytes of all blocks
	maxDeviceState  = 512 << 20 // bytes; a PC with common devices has less than one MiB
	maxCapabilities = 64
	maxConfig       = 16
)
