package nbdclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lsad/internal/nbdproto"
)

// content is what the fake server's export holds.
func content(off, n uint64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((off + uint64(i)) * 31 >> 3)
	}
	return p
}

// Many callers at once, answers in reverse order, in every mode.
func TestOutOfOrder(t *testing.T) {
	for _, m := range []mode{simple, structured, extended} {
		t.Run(fmt.Sprint(m), func(t *testing.T) {
			c, f := rig(t, m)
			const callers, each = 40, 5
			go func() {
				for range each {
					var all []request
					for range callers {
						r, err := f.request(m == extended)
						if err != nil {
							return
						}
						all = append(all, r)
					}
					for i := len(all) - 1; i >= 0; i-- {
						r := all[i]
						if m == simple {
							f.send(simpleReply(r, 0, content(r.off, r.n)))
							continue
						}
						half := r.n / 2
						f.send(chunkOf(m, r, 0, nbdproto.ReplyOffsetData, r.off+half, content(r.off+half, r.n-half)))
						f.send(chunkOf(m, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, r.off, content(r.off, half)))
					}
				}
			}()
			var barrier [each]sync.WaitGroup
			for i := range barrier {
				barrier[i].Add(callers)
			}
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for k := range each {
						off := int64(i*1000 + k)
						p := make([]byte, 300+i)
						if err := c.ReadAt(within(t), p, off); err != nil {
							t.Error(err)
						} else if !bytes.Equal(p, content(uint64(off), uint64(len(p)))) {
							t.Errorf("wrong data at %d", off)
						}
						barrier[k].Done()
						barrier[k].Wait() // the server answers a round when it has all of it
					}
				})
			}
			wg.Wait()
		})
	}
}

// What the server may send in answer to one read of 4096 bytes at 8192.
func TestReadReplies(t *testing.T) {
	const off, n = 8192, 4096
	data := content(off, n)
	tests := []struct {
		name  string
		mode  mode
		reply func(r request) []byte
		err   error  // nil: the data must be right
		text  string // in the error
	}{
		{"hole and data", structured, func(r request) []byte {
			return append(chunkOf(structured, r, 0, nbdproto.ReplyOffsetHole, uint64(off), uint32(n-96)),
				chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, uint64(off+n-96), make([]byte, 96))...)
		}, nil, "zeros"},
		{"gap", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, uint64(off), data[:n-1])
		}, ErrProtocol, "gaps"},
		{"nothing", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyNone)
		}, ErrProtocol, "gaps"},
		{"twice", structured, func(r request) []byte {
			return append(chunkOf(structured, r, 0, nbdproto.ReplyOffsetData, uint64(off), data[:n/2]),
				chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, uint64(off), data[:n/2])...)
		}, ErrProtocol, "twice"},
		{"overlap", structured, func(r request) []byte {
			return append(chunkOf(structured, r, 0, nbdproto.ReplyOffsetData, uint64(off+100), data[100:]),
				chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetHole, uint64(off), uint32(101))...)
		}, ErrProtocol, "twice"},
		{"outside", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, uint64(off+1), data)
		}, ErrProtocol, "4096 bytes at 8193"},
		{"before", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetData, uint64(0), data)
		}, ErrProtocol, "4096 bytes at 0"},
		{"hole beyond", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyOffsetHole, uint64(off), uint32(1<<32-1))
		}, ErrProtocol, "4294967295"},
		{"status", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyBlockStatus, uint32(7), uint32(4096), uint32(0))
		}, ErrProtocol, "block status chunk"},
		{"error with text", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyError, uint32(5), uint16(9), "bad\x1bblock")
		}, syscall.EIO, "bad block"},
		{"error at offset, then the end", extended, func(r request) []byte {
			return append(chunkOf(extended, r, 0, nbdproto.ReplyErrorOffset, uint32(28), uint16(0), uint64(off)),
				chunkOf(extended, r, nbdproto.ReplyFlagDone, nbdproto.ReplyNone)...)
		}, syscall.ENOSPC, ""},
		{"unknown error value", simple, func(r request) []byte { return simpleReply(r, 9999, nil) }, syscall.EINVAL, ""},
		{"error text too long", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyError, uint32(5), uint16(10), "short")
		}, ErrProtocol, "text of 10"},
		{"error of nothing", structured, func(r request) []byte {
			return chunkOf(structured, r, nbdproto.ReplyFlagDone, nbdproto.ReplyError, uint32(0), uint16(0))
		}, ErrProtocol, "without an error"},
		{"huge payload", extended, func(r request) []byte {
			return words(uint32(nbdproto.MagicExtendedReply), uint16(1), uint16(1), r.cookie, r.off, uint64(1)<<63)
		}, ErrProtocol, "9223372036854775808"},
		{"other offset", extended, func(r request) []byte {
			r.off++
			return chunkOf(extended, r, nbdproto.ReplyFlagDone, nbdproto.ReplyNone)
		}, ErrProtocol, "8193"},
		{"other cookie", simple, func(r request) []byte { r.cookie += MaxInFlight; return simpleReply(r, 0, data) }, ErrProtocol, "not in flight"},
		{"idle slot", simple, func(r request) []byte { r.cookie++; return simpleReply(r, 0, data) }, ErrProtocol, "not in flight"},
		{"simple where structured", structured, func(r request) []byte { return simpleReply(r, 0, data) }, ErrProtocol, "simple reply"},
		{"structured where simple", simple, func(r request) []byte { return chunkOf(structured, r, 1, nbdproto.ReplyNone) }, ErrProtocol, "magic"},
		{"unknown chunk", structured, func(r request) []byte { return chunkOf(structured, r, 1, 99) }, ErrProtocol, "type 99"},
		{"garbage", simple, func(request) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, ErrProtocol, "magic"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, f := rig(t, test.mode)
			go func() {
				r, err := f.request(test.mode == extended)
				if err == nil {
					f.send(test.reply(r))
				}
			}()
			p := bytes.Repeat([]byte{0xAA}, n)
			err := c.ReadAt(within(t), p, off)
			if test.err == nil {
				if err != nil || !bytes.Equal(p, make([]byte, n)) {
					t.Errorf("got %v, or not zeros", err)
				}
				return
			}
			if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.err, test.text)
			}
			var remote *RemoteError
			if ended := c.reason() != nil; ended == errors.As(err, &remote) {
				t.Errorf("after %v the client has ended: %v", err, ended)
			}
		})
	}
}

func TestBlockStatusReplies(t *testing.T) {
	tests := []struct {
		name    string
		mode    mode
		payload []byte
		want    string // extents, or a part of the error
		bad     bool
	}{
		{"compact", structured, words(uint32(7), uint32(4096), uint32(3), uint32(8192), uint32(0)), "[{4096 true true} {8192 false false}]", false},
		{"beyond", structured, words(uint32(7), uint32(4096), uint32(2), uint32(1<<30), uint32(1)), "[{4096 false true} {61440 true false}]", false},
		{"extended", extended, words(uint32(7), uint32(1), uint64(1)<<63, uint64(3)), "[{65536 true true}]", false},
		{"too many", structured, words(uint32(7), uint32(65536), uint32(2), uint32(1), uint32(0)), "more than was asked for", true},
		{"empty range", structured, words(uint32(7), uint32(0), uint32(2)), "range of 0", true},
		{"other context", structured, words(uint32(8), uint32(1), uint32(2)), "context 8", true},
		{"no range", structured, words(uint32(7)), "4 bytes", true},
		{"half a range", structured, words(uint32(7), uint32(7), uint32(7), uint32(7)), "16 bytes", true},
		{"wrong count", extended, words(uint32(7), uint32(2), uint64(1), uint64(3)), "says 2 ranges", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, f := rig(t, test.mode)
			typ := uint16(nbdproto.ReplyBlockStatus)
			if test.mode == extended {
				typ = nbdproto.ReplyBlockStatusExt
			}
			go func() {
				if r, err := f.request(test.mode == extended); err == nil {
					f.send(chunkOf(test.mode, r, nbdproto.ReplyFlagDone, typ, test.payload))
				}
			}()
			got, err := c.BlockStatus(within(t), 0, 65536, nil)
			if test.bad {
				if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
			} else if err != nil || fmt.Sprint(got) != test.want {
				t.Errorf("got %v, %v; want %s", got, err, test.want)
			}
		})
	}
}

// A caller that no longer waits costs nobody else anything, and its late answer is thrown away.
func TestCancel(t *testing.T) {
	c, f := rig(t, structured)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	p := make([]byte, 4096)
	go func() { gone <- c.ReadAt(ctx, p, 0) }()
	first, err := f.request(false)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	go func() {
		f.send(chunkOf(structured, first, 1, nbdproto.ReplyOffsetData, uint64(0), bytes.Repeat([]byte{9}, 4096)))
		if r, err := f.request(false); err == nil {
			f.send(chunkOf(structured, r, 1, nbdproto.ReplyOffsetData, r.off, content(r.off, r.n)))
		}
	}()
	q := make([]byte, 100)
	if err := c.ReadAt(within(t), q, 5); err != nil || !bytes.Equal(q, content(5, 100)) {
		t.Errorf("the next read: %v", err)
	}
	if !bytes.Equal(p, make([]byte, 4096)) {
		t.Error("a cancelled read's memory was written to")
	}
}

// While its answer arrives, a read cannot be let go of without the connection.
func TestCancelWhileArriving(t *testing.T) {
	c, f := rig(t, simple)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if r, err := f.request(false); err == nil {
			f.send(simpleReply(r, 0, make([]byte, 1000)))
			for c.received.Load() < 1016 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}
	}()
	if err := c.ReadAt(ctx, make([]byte, 4096), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-c.Done()
	if err := c.ReadAt(within(t), make([]byte, 1), 0); !errors.Is(err, ErrDisconnected) {
		t.Errorf("then got %v", err)
	}
}

func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(c *Client, f *fake)
		want error
	}{
		{"closed here", func(c *Client, _ *fake) { c.Close() }, ErrClosed},
		{"closed there", func(_ *Client, f *fake) { f.conn.Close() }, ErrDisconnected},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, f := rig(t, simple)
			var wg sync.WaitGroup
			for range 2 * MaxInFlight { // more than can be under way
				wg.Go(func() {
					if err := c.ReadAt(within(t), make([]byte, 10), 0); !errors.Is(err, test.want) {
						t.Errorf("got %v", err)
					}
				})
			}
			for range MaxInFlight {
				if _, err := f.request(false); err != nil {
					t.Fatal(err)
				}
			}
			test.end(c, f)
			wg.Wait()
		})
	}
}

// A connection on which nothing comes is given up, one that is idle or slow is not.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, server := net.Pipe()
		c := NewClient(simple.info(conn), ClientOptions{StallTimeout: 8 * time.Second})
		f := &fake{t, server}
		time.Sleep(time.Hour)
		go func() {
			r, _ := f.request(false)
			f.send(simpleReply(r, 0, nil))
			for range 10 {
				time.Sleep(5 * time.Second)
				f.send([]byte{1})
			}
			f.request(false)
		}()
		if err := c.ReadAt(context.Background(), make([]byte, 10), 0); err != nil {
			t.Errorf("a slow answer: %v", err)
		}
		begin := time.Now()
		err := c.ReadAt(context.Background(), make([]byte, 10), 0)
		if took := time.Since(begin); !errors.Is(err, ErrDisconnected) || took < 8*time.Second || took > 11*time.Second {
			t.Errorf("no answer: %v after %v", err, took)
		}
		c.Close()
		server.Close()
	})
}

func TestRanges(t *testing.T) {
	conn, _ := pair(t)
	info := structured.info(conn)
	info.MinBlock = 512
	c := NewClient(info, ClientOptions{})
	defer c.Close()
	for _, r := range [][2]int64{{-512, 512}, {1 << 20, 512}, {1<<20 - 512, 1024}, {1, 512}, {0, 100}, {1 << 62, 512}} {
		if err := c.ReadAt(within(t), make([]byte, r[1]), r[0]); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("read of %v: %v", r, err)
		}
		if _, err := c.BlockStatus(within(t), r[0], r[1], nil); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("status of %v: %v", r, err)
		}
	}
	info.Allocation = false
	plain := NewClient(info, ClientOptions{})
	defer plain.Close()
	if _, err := plain.BlockStatus(within(t), 0, 512, nil); !errors.Is(err, ErrNoBlockStatus) {
		t.Errorf("got %v", err)
	}
}

// echo answers reads with the same payload over and over, without allocating.
func (f *fake) echo(n int) {
	reply := chunkOf(structured, request{}, 1, nbdproto.ReplyOffsetData, uint64(0), make([]byte, n))
	head := make([]byte, nbdproto.RequestSize)
	for {
		if _, err := io.ReadFull(f.conn, head); err != nil {
			return
		}
		copy(reply[8:16], head[8:16])   // cookie
		copy(reply[20:28], head[16:24]) // offset
		if _, err := f.conn.Write(reply); err != nil {
			return
		}
	}
}

// outcome is a Completion.
type outcome chan error

func (o outcome) Done(err error) { o <- err }

func TestStart(t *testing.T) {
	c, f := rig(t, structured)
	go f.echo(4096)
	p, done := make([]byte, 4096), make(outcome, 2*MaxInFlight)
	for _, bad := range []int64{-1, 1 << 20} {
		if c.Start(p, bad, done) {
			t.Errorf("a read at %d was begun", bad)
		}
	}
	if got := testing.AllocsPerRun(200, func() {
		if !c.Start(p, 0, done) {
			t.Fatal("not begun")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}); got >= 1 {
		t.Errorf("%v allocations per read", got)
	}
	f.conn.Close()
	<-c.Done()
	if c.Start(p, 0, done) {
		t.Error("a client that has ended began a read")
	}
}

// Every read that was begun is told of, also when the connection goes.
func TestStartEnds(t *testing.T) {
	c, f := rig(t, simple)
	done := make(outcome, 2*MaxInFlight)
	begun := 0
	for c.Start(make([]byte, 10), 0, done) {
		begun++
	}
	if begun != MaxInFlight {
		t.Errorf("%d reads in flight", begun)
	}
	f.conn.Close()
	for range begun {
		if err := <-done; !errors.Is(err, ErrDisconnected) {
			t.Errorf("got %v", err)
		}
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	c, f := rig(t, structured)
	go f.echo(4096)
	p, ctx := make([]byte, 4096), within(t)
	if got := testing.AllocsPerRun(200, func() {
		if err := c.ReadAt(ctx, p, 0); err != nil {
			t.Fatal(err)
		}
	}); got >= 1 {
		t.Errorf("%v allocations per read", got)
	}
}

func BenchmarkRead4K(b *testing.B) {
	c, f := rig(b, structured)
	f.conn.SetDeadline(time.Time{})
	go f.echo(4096)
	p := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadAt(context.Background(), p, 0); err != nil {
			b.Fatal(err)
		}
	}
}
