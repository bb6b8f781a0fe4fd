package nbdclient

import (
	"slices"

	"lsad/internal/nbdproto"
)

// States of a call.
const (
	idle      = iota // not in use, or finished
	waiting          // for an answer
	filling          // its answer is arriving; only the receiver touches it
	abandoned        // nobody wants its answer
)

// maxPieces bounds the separate ranges that a server may answer a read in, at any moment.
const maxPieces = 1024

// call is a request under way. state is guarded by Client.mu; the rest belongs to the caller before it starts and
// after it is done, and to the receiver between.
type call struct {
	slot       uint64
	generation uint64
	state      int

	cmd     uint16
	off, n  int64
	p       []byte
	extents []Extent

	err    error
	got    []piece  // what came of a read, sorted, apart from one another
	room   [4]piece // for got, mostly enough
	status bool     // block status came
	done   chan struct{}
	then   Completion // instead of done
}

// piece is a range of bytes of a read, relative to it.
type piece struct{ from, to int64 }

func (k *call) begin(cmd uint16, p []byte, off, n int64) {
	k.cmd, k.p, k.off, k.n = cmd, p, off, n
	k.err, k.got, k.extents, k.status = nil, k.got[:0], nil, false
}

// cookie names the call. A late answer to an earlier use of its slot has another one.
func (k *call) cookie() uint64 { return k.generation<<8 | k.slot }

// tell gives the outcome to whoever waits for it. After that the call is theirs, or free.
func (k *call) tell(free chan<- *call) {
	then := k.then
	if then == nil {
		k.done <- struct{}{}
		return
	}
	err := k.err
	k.p, k.then = nil, nil
	free <- k
	then.Done(err)
}

func (k *call) op() string {
	if k.cmd == nbdproto.CmdBlockStatus {
		return "block status"
	}
	return "read"
}

// claim marks [off, off+n) of the export as answered, and returns where it lies in the read.
func (k *call) claim(off uint64, n int64) (at int64, err error) {
	if k.cmd != nbdproto.CmdRead {
		return 0, protocolError("data for a request that is no read")
	}
	if off < uint64(k.off) || n <= 0 || off-uint64(k.off) > uint64(k.n) || n > k.n-int64(off-uint64(k.off)) {
		return 0, protocolError("%d bytes at %d in the answer to a read of %d at %d", n, off, k.n, k.off)
	}
	at = int64(off) - k.off
	new := piece{at, at + n}
	i, _ := slices.BinarySearchFunc(k.got, new, func(a, b piece) int { return int(min(1, max(-1, a.from-b.from))) })
	if i > 0 && k.got[i-1].to > new.from || i < len(k.got) && k.got[i].from < new.to {
		return 0, protocolError("bytes of a read twice")
	}
	joinsLeft := i > 0 && k.got[i-1].to == new.from
	joinsRight := i < len(k.got) && k.got[i].from == new.to
	switch {
	case joinsLeft && joinsRight:
		k.got[i-1].to = k.got[i].to
		k.got = slices.Delete(k.got, i, i+1)
	case joinsLeft:
		k.got[i-1].to = new.to
	case joinsRight:
		k.got[i].from = new.from
	case len(k.got) == maxPieces:
		return 0, protocolError("a read answered in more than %d places at once", maxPieces)
	default:
		k.got = slices.Insert(k.got, i, new)
	}
	return at, nil
}

// complete checks, at the end of the answer, that nothing is missing.
func (k *call) complete() error {
	switch {
	case k.err != nil:
		return nil
	case k.cmd == nbdproto.CmdRead && (len(k.got) != 1 || k.got[0] != piece{0, k.n}):
		return protocolError("the answer to a read of %d bytes at %d has gaps", k.n, k.off)
	case k.cmd == nbdproto.CmdBlockStatus && !k.status:
		return protocolError("an answer to block status without any")
	}
	return nil
}

// addExtent takes in one range of a block status, as far as it was asked for, and says whether more may follow.
func (k *call) addExtent(told, length int64, status uint64) (int64, error) {
	if length <= 0 {
		return told, protocolError("block status with a range of %d bytes", length)
	}
	length = min(length, k.n-told)
	if length == 0 {
		return told, protocolError("block status of more than was asked for")
	}
	k.extents = append(k.extents, Extent{Length: length, Hole: status&nbdproto.StateHole != 0, Zero: status&nbdproto.StateZero != 0})
	return told + length, nil
}
