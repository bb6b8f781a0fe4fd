// Package nbdproto has the numbers of the Network Block Device protocol, for its server and its clients.
//
// They come from the protocol's specification, doc/proto.md of NetworkBlockDevice/nbd, and those of extended headers
// from the same file on its branch extension-ext-header. The names follow it, without NBD_.
package nbdproto

// Magic numbers.
const (
	MagicInit            = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption          = 0x49484156454F5054 // "IHAVEOPT"
	MagicOptionReply     = 0x0003e889045565a9
	MagicRequest         = 0x25609513
	MagicSimpleReply     = 0x67446698
	MagicStructuredReply = 0x668e33ef
	MagicExtendedRequest = 0x21e41c71
	MagicExtendedReply   = 0x6e8a278c
)

// Handshake flags of the server, and client flags: the same bits.
const (
	FlagFixedNewstyle = 1 << 0
	FlagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	FlagHasFlags           = 1 << 0
	FlagReadOnly           = 1 << 1
	FlagSendFlush          = 1 << 2
	FlagSendFUA            = 1 << 3
	FlagRotational         = 1 << 4
	FlagSendTrim           = 1 << 5
	FlagSendWriteZeroes    = 1 << 6
	FlagSendDF             = 1 << 7
	FlagCanMultiConn       = 1 << 8
	FlagSendCache          = 1 << 10
	FlagSendFastZero       = 1 << 11
	FlagBlockStatusPayload = 1 << 12
)

// Options.
const (
	OptExportName      = 1
	OptAbort           = 2
	OptList            = 3
	OptStartTLS        = 5
	OptInfo            = 6
	OptGo              = 7
	OptStructuredReply = 8
	OptListMetaContext = 9
	OptSetMetaContext  = 10
	OptExtendedHeaders = 11
)

// Option replies.
const (
	RepAck         = 1
	RepServer      = 2
	RepInfo        = 3
	RepMetaContext = 4

	RepError            = 1 << 31 // set in every error
	RepErrUnsup         = 1<<31 + 1
	RepErrPolicy        = 1<<31 + 2
	RepErrInvalid       = 1<<31 + 3
	RepErrTLSReqd       = 1<<31 + 5
	RepErrUnknown       = 1<<31 + 6
	RepErrShutdown      = 1<<31 + 7
	RepErrBlockSizeReq  = 1<<31 + 8
	RepErrTooBig        = 1<<31 + 9
	RepErrExtHeaderReqd = 1<<31 + 10
)

// Information types of INFO and GO.
const (
	InfoExport      = 0
	InfoName        = 1
	InfoDescription = 2
	InfoBlockSize   = 3
)

// Commands.
const (
	CmdRead        = 0
	CmdWrite       = 1
	CmdDisc        = 2
	CmdFlush       = 3
	CmdTrim        = 4
	CmdCache       = 5
	CmdWriteZeroes = 6
	CmdBlockStatus = 7
)

// Command flags.
const (
	CmdFlagFUA        = 1 << 0
	CmdFlagNoHole     = 1 << 1
	CmdFlagDF         = 1 << 2
	CmdFlagReqOne     = 1 << 3
	CmdFlagFastZero   = 1 << 4
	CmdFlagPayloadLen = 1 << 5
)

// Structured reply chunks.
const (
	ReplyFlagDone = 1 << 0

	ReplyNone           = 0
	ReplyOffsetData     = 1
	ReplyOffsetHole     = 2
	ReplyBlockStatus    = 5
	ReplyBlockStatusExt = 6
	ReplyErrorBit       = 1 << 15
	ReplyError          = 1<<15 + 1
	ReplyErrorOffset    = 1<<15 + 2
)

// ContextAllocation is the metadata context that says what is a hole.
const ContextAllocation = "base:allocation"

// States of base:allocation.
const (
	StateHole = 1 << 0
	StateZero = 1 << 1
)

// Error values.
const (
	EPerm     = 1
	EIO       = 5
	ENoMem    = 12
	EInval    = 22
	ENoSpc    = 28
	EOverflow = 75
	ENotSup   = 95
	EShutdown = 108
)

// Sizes, in bytes.
const (
	RequestSize         = 28 // compact request header
	ExtendedRequestSize = 32
	SimpleReplySize     = 16
	StructuredReplySize = 20
	ExtendedReplySize   = 32

	// MaxString bounds every string of the protocol.
	MaxString = 4096
	// MaxPayload is the longest payload where nothing else was negotiated.
	MaxPayload = 32 << 20
)
