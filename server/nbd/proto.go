package nbd

// The names follow the specification, without its NBD_ prefix.

// Magic numbers.
const (
	magicInit            = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption          = 0x49484156454F5054 // "IHAVEOPT"
	magicOptionReply     = 0x0003e889045565a9
	magicRequest         = 0x25609513
	magicSimpleReply     = 0x67446698
	magicStructuredReply = 0x668e33ef
	magicExtendedRequest = 0x21e41c71
	magicExtendedReply   = 0x6e8a278c
)

// Handshake flags (server) and client flags: the same bits.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags           = 1 << 0
	flagReadOnly           = 1 << 1
	flagSendFlush          = 1 << 2
	flagSendFUA            = 1 << 3
	flagSendTrim           = 1 << 5
	flagSendWriteZeroes    = 1 << 6
	flagSendDF             = 1 << 7
	flagCanMultiConn       = 1 << 8
	flagSendCache          = 1 << 10
	flagSendFastZero       = 1 << 11
	flagBlockStatusPayload = 1 << 12
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
	optExtendedHeaders = 11
)

// Option replies.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repErrUnsup         = 1<<31 + 1
	repErrPolicy        = 1<<31 + 2
	repErrInvalid       = 1<<31 + 3
	repErrTLSReqd       = 1<<31 + 5
	repErrUnknown       = 1<<31 + 6
	repErrShutdown      = 1<<31 + 7
	repErrTooBig        = 1<<31 + 9
	repErrExtHeaderReqd = 1<<31 + 10
)

// Information types of INFO and GO.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Command flags.
const (
	cmdFlagFUA        = 1 << 0
	cmdFlagNoHole     = 1 << 1
	cmdFlagDF         = 1 << 2
	cmdFlagReqOne     = 1 << 3
	cmdFlagFastZero   = 1 << 4
	cmdFlagPayloadLen = 1 << 5
)

// Structured reply chunks.
const (
	replyFlagDone = 1 << 0

	replyNone           = 0
	replyOffsetData     = 1
	replyOffsetHole     = 2
	replyBlockStatus    = 5
	replyBlockStatusExt = 6
	replyError          = 1<<15 + 1
	replyErrorOffset    = 1<<15 + 2
)

// States of the base:allocation context.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

// Error values.
const (
	ePerm     = 1
	eIO       = 5
	eNoMem    = 12
	eInval    = 22
	eNoSpc    = 28
	eOverflow = 75
	eNotSup   = 95
	eShutdown = 108
)

// Sizes, in bytes.
const (
	requestSize         = 28 // compact request header
	extendedRequestSize = 32
	simpleReplySize     = 16
	structuredReplySize = 20
	extendedReplySize   = 32

	// maxString bounds every string of the protocol.
	maxString = 4096
)

// Size constraints that every export advertises. They are the specification's defaults, so that a client
// that does not ask for them is served the same.
const (
	// MinBlockSize is the smallest unit of a request, in bytes.
	MinBlockSize = 1
	// PreferredBlockSize is the unit below which a write needs a read first, in bytes.
	PreferredBlockSize = 4096
	// MaxPayload is the longest payload of a request or a reply, in bytes.
	MaxPayload = 32 << 20
)
