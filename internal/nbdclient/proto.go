package nbdclient

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

// Handshake flags of the server, and client flags: the same bits.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags, as in Info.Flags.
const (
	FlagHasFlags        = 1 << 0
	FlagReadOnly        = 1 << 1
	FlagSendFlush       = 1 << 2
	FlagSendFUA         = 1 << 3
	FlagRotational      = 1 << 4
	FlagSendTrim        = 1 << 5
	FlagSendWriteZeroes = 1 << 6
	FlagSendDF          = 1 << 7
	FlagCanMultiConn    = 1 << 8
	FlagSendCache       = 1 << 10
	FlagSendFastZero    = 1 << 11
)

// Options.
const (
	optStartTLS        = 5
	optGo              = 7
	optStructuredReply = 8
	optSetMetaContext  = 10
	optExtendedHeaders = 11
)

// Option replies.
const (
	repAck         = 1
	repInfo        = 3
	repMetaContext = 4

	repError           = 1 << 31 // set in every error
	repErrUnsup        = 1<<31 + 1
	repErrPolicy       = 1<<31 + 2
	repErrInvalid      = 1<<31 + 3
	repErrTLSReqd      = 1<<31 + 5
	repErrUnknown      = 1<<31 + 6
	repErrShutdown     = 1<<31 + 7
	repErrBlockSizeReq = 1<<31 + 8
	repErrTooBig       = 1<<31 + 9
)

// Information types of GO.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Commands.
const (
	cmdRead        = 0
	cmdDisc        = 2
	cmdBlockStatus = 7
)

// Structured reply chunks.
const (
	replyFlagDone = 1 << 0

	replyNone           = 0
	replyOffsetData     = 1
	replyOffsetHole     = 2
	replyBlockStatus    = 5
	replyBlockStatusExt = 6
	replyErrorBit       = 1 << 15
	replyError          = 1<<15 + 1
	replyErrorOffset    = 1<<15 + 2
)

// States of the base:allocation context.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

const contextAllocation = "base:allocation"

// Sizes, in bytes.
const (
	requestSize         = 28
	extendedRequestSize = 32
	simpleReplySize     = 16
	structuredReplySize = 20
	extendedReplySize   = 32

	// maxString bounds every string of the protocol.
	maxString = 4096
	// defaultMaxPayload holds for servers that name no largest block.
	defaultMaxPayload = 32 << 20
)
