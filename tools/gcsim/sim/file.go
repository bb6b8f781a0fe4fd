package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrTrace is a trace file that is not one.
var ErrTrace = errors.New("not a line of a block trace: want volume,R|W,offset,length,timestamp_us")

// Bounds of what a line of a trace may say.
const (
	blockSize   = 4096
	lengthMax   = 64 << 20
	traceBlocks = 1 << 28 // distinct blocks: 1 TiB
)

// FileTrace is a trace read from a file, held in memory.
type FileTrace struct {
	ops    []Op
	next   int
	blocks int
}

// Blocks is the number of distinct blocks that the trace touches.
func (t *FileTrace) Blocks() int { return t.blocks }

// Requests is the number of its requests; one that touches blocks which are not neighbours in the simulated
// array counts as several.
func (t *FileTrace) Requests() int { return len(t.ops) }

// Next implements Trace.
func (t *FileTrace) Next() (Op, bool) {
	if t.next == len(t.ops) {
		return Op{}, false
	}
	t.next++
	return t.ops[t.next-1], true
}

// Again is the same trace from its start.
func (t *FileTrace) Again() *FileTrace { return &FileTrace{ops: t.ops, blocks: t.blocks} }

// ReadTrace reads a trace in the format of the Alibaba block traces: one request a line,
// volume,opcode,offset,length,timestamp, in bytes and microseconds
// (https://github.com/alibaba/block-traces). Blocks are numbered as they first appear. It reads at most max
// requests, all if max is zero. The error wraps ErrTrace and names the line.
func ReadTrace(r io.Reader, max int) (*FileTrace, error) {
	t := &FileTrace{}
	ids := map[[2]uint64]uint32{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), 4096)
	last := uint64(0)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		q, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		gap := 0.0
		if last != 0 && q.at > last {
			gap = float64(q.at-last) / 1e6
		}
		last = q.at
		if len(ids) > traceBlocks {
			return nil, fmt.Errorf("line %d: the trace touches more than %d blocks: %w", n, traceBlocks, ErrTrace)
		}
		t.add(q, gap, ids)
		if max > 0 && n >= max {
			break
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	if len(t.ops) == 0 {
		return nil, fmt.Errorf("the trace is empty: %w", ErrTrace)
	}
	t.blocks = len(ids)
	return t, nil
}

// request is a line of a trace.
type request struct {
	volume, offset, length, at uint64
	read                       bool
}

func parseLine(line string) (q request, err error) {
	f := strings.Split(line, ",")
	if len(f) != 5 {
		return q, fmt.Errorf("%d fields: %w", len(f), ErrTrace)
	}
	for i, to := range map[int]*uint64{0: &q.volume, 2: &q.offset, 3: &q.length, 4: &q.at} {
		if *to, err = strconv.ParseUint(strings.TrimSpace(f[i]), 10, 63); err != nil {
			return q, fmt.Errorf("field %d: %w", i+1, ErrTrace)
		}
	}
	switch strings.TrimSpace(f[1]) {
	case "R", "r":
		q.read = true
	case "W", "w":
	default:
		return q, fmt.Errorf("opcode %.10q: %w", f[1], ErrTrace)
	}
	if q.length == 0 || q.length > lengthMax || q.offset > 1<<62 {
		return q, fmt.Errorf("offset %d, length %d: %w", q.offset, q.length, ErrTrace)
	}
	return q, nil
}

// add appends a request as runs of neighbouring blocks.
func (t *FileTrace) add(q request, gap float64, ids map[[2]uint64]uint32) {
	run := Op{Read: q.read, Gap: gap}
	for b := q.offset / blockSize; b <= (q.offset+q.length-1)/blockSize; b++ {
		key := [2]uint64{q.volume, b}
		id, ok := ids[key]
		if !ok {
			id = uint32(len(ids))
			ids[key] = id
		}
		if run.Blocks > 0 && id != run.Block+run.Blocks {
			t.ops = append(t.ops, run)
			run = Op{Read: q.read}
		}
		if run.Blocks == 0 {
			run.Block = id
		}
		run.Blocks++
	}
	t.ops = append(t.ops, run)
}
