// Package direct lets another process on the same machine read blocks of an array from its devices, past the server.
//
// The server tells where blocks lie and what their checksums are: a Row for each. Once told, the array may move a block
// and use its segment for something else, and does not wait for anybody. So it keeps a file, Uses, with a number for
// each segment, which it changes before the segment takes new data. A Reader reads a block, then looks at the number:
// if it is still what came with the row, then what was read is what the row promised. A checksum that does not match,
// a number that changed, a server that started anew: each means no more than that the block has to be had from the
// server, which every Reader's caller can do as well.
//
// The package owns the file of numbers, the rows' layout, and on the reading side the descriptors of the devices. It
// knows no volume and no protocol: how rows come from the server to the reader is the caller's business.
//
// # Locks
//
// Uses.mu orders changes of the file and is held across their writes, a few bytes to the page cache. Reader.mu (which
// rows are there) is not held across I/O; loading holds one token for it. An array's lock, view.mu, is held shared
// while a block is read, and exclusively to close its descriptors. None is taken while another is held.
package direct
