// Package hexfile keeps bytes as annotated text, so that a test can hold a
// format to what people can read. It is for tests only and touches no file but
// the one it is given.
package hexfile

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Field names a run of bytes.
type Field struct {
	Size int // bytes; 0 stands for all that is left
	Name string
}

// perLine bytes are shown on a line; longer runs of zeros are counted.
const perLine = 16

// Render returns p with an annotation for each field: a line for each 16 bytes
// of it, "OFFSET: BYTES | NAME", or "OFFSET: 00 x COUNT | NAME".
func Render(p []byte, fields []Field) string {
	var b strings.Builder
	off := 0
	for _, f := range fields {
		end := off + f.Size
		if f.Size == 0 {
			end = len(p)
		}
		name := f.Name
		for off < end {
			line := p[off:min(off+perLine, end)]
			text := spaced(line)
			if zeros := p[off:end]; len(zeros) > perLine && strings.Count(string(zeros), "\x00") == len(zeros) {
				line, text = zeros, fmt.Sprintf("00 x %d", len(zeros))
			}
			fmt.Fprintf(&b, "%04x: %-47s | %s\n", off, text, name)
			off += len(line)
			name = "..."
		}
	}
	if off != len(p) {
		fmt.Fprintf(&b, "# %d bytes without a name\n", len(p)-off)
	}
	return b.String()
}

func spaced(p []byte) string {
	parts := make([]string, len(p))
	for i, c := range p {
		parts[i] = hex.EncodeToString([]byte{c})
	}
	return strings.Join(parts, " ")
}

// Parse returns the bytes of a text that Render made. Lines that begin with #
// are comments.
func Parse(text string) ([]byte, error) {
	var p []byte
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		line, _, _ = strings.Cut(line, "|")
		offset, text, _ := strings.Cut(line, ":")
		if at, err := strconv.ParseUint(offset, 16, 32); err != nil || int(at) != len(p) {
			return nil, fmt.Errorf("line %d is at offset %q, not %x", i+1, offset, len(p))
		}
		more, err := parseBytes(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		p = append(p, more...)
	}
	return p, nil
}

func parseBytes(text string) ([]byte, error) {
	if count, ok := strings.CutPrefix(text, "00 x "); ok {
		n, err := strconv.ParseUint(count, 10, 16)
		return make([]byte, n), err
	}
	return hex.DecodeString(strings.ReplaceAll(text, " ", ""))
}

// Golden fails the test unless the file says of p what Render does, under
// a comment, and returns the bytes that the file has. With -update it writes
// the file.
func Golden(t testing.TB, path, comment string, p []byte, fields []Field) []byte {
	t.Helper()
	want := "# " + comment + "\n" + Render(p, fields)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Fatalf("%s has\n%s\nand this build writes\n%s", path, text, want)
	}
	parsed, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return parsed
}
