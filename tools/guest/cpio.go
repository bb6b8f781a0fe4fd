package guest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// cpioWriter writes an initramfs: a cpio archive of the "newc" kind
// (Documentation/driver-api/early-userspace/buffer-format.rst). Parent
// directories are made as they are first needed. Errors stick and are returned
// by close.
type cpioWriter struct {
	w     *bufio.Writer
	inode uint32
	known map[string]bool // paths that are in the archive, without the leading slash
	err   error
}

// File types and sizes in the archive.
const (
	cpioDir     = 0o040000
	cpioRegular = 0o100000
	cpioSymlink = 0o120000
	cpioChar    = 0o020000
	cpioMaxFile = 1<<32 - 1
)

func newCpioWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: bufio.NewWriterSize(w, 1<<20), known: map[string]bool{".": true}}
}

// entry writes a header, the name and the data, each padded to four bytes. A
// path that is there already is left as it is.
func (c *cpioWriter) entry(name string, mode uint32, major, minor uint32, size int64, data io.Reader) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if c.err != nil || c.known[name] || name == "" {
		return
	}
	if size > cpioMaxFile {
		c.err = fmt.Errorf("%s: %d bytes are too many for an initramfs", name, size)
		return
	}
	if dir := path.Dir(name); !c.known[dir] {
		c.entry(dir, cpioDir|0o755, 0, 0, 0, nil)
	}
	c.known[name] = true
	c.inode++
	c.raw(name, c.inode, mode, major, minor, size, data)
}

func (c *cpioWriter) raw(name string, inode, mode, major, minor uint32, size int64, data io.Reader) {
	if c.err != nil {
		return
	}
	fields := []uint32{inode, mode, 0, 0, 1, 0, uint32(size), 0, 0, major, minor, uint32(len(name) + 1), 0}
	header := "070701"
	for _, f := range fields {
		header += fmt.Sprintf("%08X", f)
	}
	header += name + "\x00"
	c.pad(c.w.WriteString(header))
	if data == nil {
		return
	}
	n, err := io.Copy(c.w, io.LimitReader(data, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	c.pad(int(n%4), err)
}

// pad fills up to a multiple of four after n bytes were written.
func (c *cpioWriter) pad(n int, err error) {
	if err == nil {
		_, err = c.w.Write(make([]byte, (4-n%4)%4))
	}
	if c.err == nil && err != nil {
		c.err = err
	}
}

func (c *cpioWriter) dir(name string, perm uint32) { c.entry(name, cpioDir|perm, 0, 0, 0, nil) }

func (c *cpioWriter) device(name string, major, minor uint32) {
	c.entry(name, cpioChar|0o600, major, minor, 0, nil)
}

func (c *cpioWriter) symlink(name, target string) {
	c.entry(name, cpioSymlink|0o777, 0, 0, int64(len(target)), strings.NewReader(target))
}

func (c *cpioWriter) bytes(name string, perm uint32, data string) {
	c.entry(name, cpioRegular|perm, 0, 0, int64(len(data)), strings.NewReader(data))
}

// file copies a file of the host; symbolic links are followed.
func (c *cpioWriter) file(name, host string) {
	if c.err != nil {
		return
	}
	f, err := os.Open(host)
	if err != nil {
		c.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		c.err = err
		return
	}
	c.entry(name, cpioRegular|uint32(st.Mode().Perm()), 0, 0, st.Size(), f)
}

// close ends the archive.
func (c *cpioWriter) close() error {
	c.raw("TRAILER!!!", 0, 0, 0, 0, 0, nil)
	if c.err == nil {
		c.err = c.w.Flush()
	}
	return c.err
}
