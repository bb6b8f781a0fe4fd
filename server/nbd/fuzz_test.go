package nbd

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"lsad/internal/nbdproto"
	"lsad/server/nbd/memexport"
)

// serveBytes gives a server one connection that says p and then nothing more, and returns when the server has
// let go of it. Whatever p is, the server must survive, close its export and leave no goroutine.
func serveBytes(t *testing.T, p []byte) {
	goroutines := runtime.NumGoroutine()
	sh := &shelf{disks: map[string]*memexport.Disk{"disk": memexport.New(1<<20, false)}}
	sh.disks["disk"].TryReads = 2
	srv, err := New(Config{Catalog: sh, MaxBufferBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- srv.Serve(context.Background(), l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(testDeadline))
	go func() {
		nc.Write(p)
		nc.(*net.TCPConn).CloseWrite()
	}()
	if _, err := io.Copy(io.Discard, nc); err != nil && !isReset(err) {
		t.Fatal(err)
	}
	nc.Close()
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if n := sh.disks["disk"].Opened(); n != 0 {
		t.Errorf("the export is open %d times", n)
	}
	if n := srv.Stats().BufferBytes; n != 0 {
		t.Errorf("%d bytes of payload memory in use", n)
	}
	eventually(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func FuzzHandshake(f *testing.F) {
	hello := []byte{0, 0, 0, 3}
	for _, opts := range [][]byte{
		nil,
		option(nbdproto.OptExportName, []byte("disk")),
		append(option(nbdproto.OptStructuredReply, nil), option(nbdproto.OptGo, infoData("disk", 1, 2, 3))...),
		append(option(nbdproto.OptExtendedHeaders, nil), option(nbdproto.OptSetMetaContext, metaData("disk", "base:allocation"))...),
		option(nbdproto.OptListMetaContext, metaData("disk", "base:")),
		append(option(nbdproto.OptList, nil), option(nbdproto.OptAbort, nil)...),
		option(nbdproto.OptStartTLS, nil),
		option(nbdproto.OptInfo, []byte{0, 0, 0xff, 0xff, 'd'}),
		option(4242, make([]byte, 100)),
	} {
		f.Add(append(hello[:4:4], opts...))
	}
	f.Fuzz(serveBytes)
}

func FuzzRequests(f *testing.F) {
	for i, m := range modes {
		f.Add(uint8(i), req{cmd: nbdproto.CmdRead, n: 4096}.bytes(m))
		f.Add(uint8(i), req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF, n: 100 << 10}.bytes(m))
		f.Add(uint8(i), append(req{cmd: nbdproto.CmdWrite, data: []byte("data")}.bytes(m), req{cmd: nbdproto.CmdFlush}.bytes(m)...))
		f.Add(uint8(i), req{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagFastZero | nbdproto.CmdFlagNoHole, off: 1, n: 9000}.bytes(m))
		f.Add(uint8(i), req{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagFUA, n: 1 << 19}.bytes(m))
		f.Add(uint8(i), req{cmd: nbdproto.CmdBlockStatus, flags: nbdproto.CmdFlagReqOne, n: 1 << 20}.bytes(m))
		f.Add(uint8(i), req{cmd: nbdproto.CmdBlockStatus, data: []byte{0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 1}}.bytes(m))
		f.Add(uint8(i), req{cmd: nbdproto.CmdCache, n: 1 << 20}.bytes(m))
		f.Add(uint8(i), append(req{cmd: nbdproto.CmdWrite, data: make([]byte, 70<<10)}.bytes(m), req{cmd: nbdproto.CmdDisc}.bytes(m)...))
	}
	f.Fuzz(func(t *testing.T, kind uint8, p []byte) {
		m := modes[int(kind)%len(modes)]
		start := []byte{0, 0, 0, 3}
		if m != simple {
			start = append(start, option(map[mode]uint32{structured: nbdproto.OptStructuredReply, extended: nbdproto.OptExtendedHeaders}[m], nil)...)
			start = append(start, option(nbdproto.OptSetMetaContext, metaData("disk", "base:allocation"))...)
		}
		start = append(start, option(nbdproto.OptGo, infoData("disk"))...)
		serveBytes(t, append(start, p...))
	})
}
