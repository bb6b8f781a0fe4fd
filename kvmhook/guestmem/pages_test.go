package guestmem

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// TestEachPage looks at the pages of a range in its file, in its mapping, and in both where the file is shorter than it
// was when it was mapped.
func TestEachPage(t *testing.T) {
	const off, size = 3 * PageSize, 5<<19 + 7*PageSize // no multiple of what is read at once
	file := make([]byte, off+size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(file)
	for name, f := range map[string]io.ReaderAt{
		"mapped": nil, "file": bytes.NewReader(file), "short file": bytes.NewReader(file[:off+size/2+100]), "empty file": bytes.NewReader(nil),
	} {
		r := Range{Data: file[off:], File: f, Off: off}
		part := Extent{2 * PageSize, size - 3*PageSize}
		next := part.Off
		r.eachPage(part, func(at uint64, page []byte) {
			if at != next || !bytes.Equal(page, r.Data[at:at+PageSize]) {
				t.Fatalf("%s: the page at %d is not the one at %d", name, at, next)
			}
			next += PageSize
		})
		if next != part.Off+part.Len {
			t.Errorf("%s: visited up to %d of %d", name, next, part.Off+part.Len)
		}
	}
}
