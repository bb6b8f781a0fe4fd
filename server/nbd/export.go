package nbd

import "errors"

// ErrUnknownExport is what Catalog.Open's error Is when there is no export of that name.
var ErrUnknownExport = errors.New("unknown export")

// ExportInfo is how an export presents itself to clients.
type ExportInfo struct {
	Name        string
	Description string // for people; may be empty
}

// Client says who opens an export.
type Client struct {
	Addr string // "IP:port", or "unix:pid=N,uid=N" of the process that connected
	Name string // common name of the client's TLS certificate, "" without one
	TLS  bool
}

// Catalog finds exports by name. Its methods may be called from many goroutines at once.
type Catalog interface {
	// List returns the exports that a client may see, in name order.
	List() []ExportInfo
	// Open opens an export for one connection; "" is the default export. If there is none of that name
	// the error Is ErrUnknownExport. Exports are also opened for a moment to answer questions about them.
	Open(name string, client Client) (Export, error)
}

// Export is one opened volume or snapshot. Its methods may be called from many goroutines at once, except
// Close, which comes last. Offsets and lengths are in bytes and lie within Size.
//
// Errors reach the client as the NBD error of the first syscall.Errno they wrap (ENOSPC, EPERM, EINVAL,
// ENOMEM, EOVERFLOW, ENOTSUP, ESHUTDOWN), all others as EIO, together with their text. An OffsetError
// also says where.
type Export interface {
	// Size is in bytes, and may grow while the export is open.
	Size() int64
	// ReadOnly does not change while the export is open.
	ReadOnly() bool
	// TryReadAt fills p if that needs no wait for a disk. With done=false p is undefined.
	TryReadAt(p []byte, off int64) (done bool, err error)
	ReadAt(p []byte, off int64) error
	// WriteBatch writes data[i] at offs[i] and sets errs[i]. It returns when every write is acknowledged
	// or failed. It does not keep data. Overlapping writes of one batch take effect in slice order.
	WriteBatch(offs []int64, data [][]byte, errs []error)
	// Trim says that [off, off+n) is no longer needed.
	Trim(off, n int64) error
	// WriteZeroes makes [off, off+n) read as zeros; with noHole the range stays allocated. It writes no
	// data, except for the parts of blocks at unaligned edges.
	WriteZeroes(off, n int64, noHole bool) error
	// Flush makes durable everything that was acknowledged before, on every connection.
	Flush() error
	// Extents calls fn with consecutive extents that cover [off, off+n), until fn returns false.
	Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error
	Close() error
}

// Described is implemented by exports that know their canonical name and description. The name of one
// that does not is taken to be the name by which it was opened.
type Described interface {
	Info() ExportInfo
}
