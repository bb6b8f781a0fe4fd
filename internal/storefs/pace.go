package storefs

import "github.com/cockroachdb/pebble/v2/vfs"

// compaction is what Pebble calls the writing of tables that compactions make.
const compaction vfs.DiskWriteCategory = "pebble-compaction"

// restBytes: after so many a compaction may rest. They take it some 0.1 ms of a processor.
const restBytes = 16 << 10

// restfulFile is a table that a compaction writes. Nobody waits for compactions, while everybody waits for processors
// where these are few: the kernel lets a thread that has one keep it for milliseconds. Pebble makes a block only when the
// one before is written, so to wait here is to wait there.
type restfulFile struct {
	file
	since int // bytes since it last rested
}

func (f *restfulFile) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	if f.since += n; f.since >= restBytes {
		f.since = 0
		if f.fs.o.Rest != nil && f.fs.deadline.Load() == nil {
			f.fs.o.Rest()
		}
	}
	return n, err
}
