package guestmem

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The note is an ELF note (u32 length of the name, u32 length of the text, u32
// type, name padded to four bytes, text) at the start of pages that the kernel
// allocates for it alone: Linux, kernel/crash_core.c and, from 6.9 on,
// kernel/vmcore_info.c.
const (
	noteName     = "VMCOREINFO\x00\x00"
	noteHeader   = 12 + len(noteName)
	noteNameLen  = 11
	noteMaxText  = 4096 // VMCOREINFO_BYTES
	noteFirstKey = "OSRELEASE="
)

// maxNotes bounds how many different notes are looked at. A guest that was
// rebooted a few times may have some; one with more is playing games.
const maxNotes = 16

// A note is what the guest's kernel says of itself for those who read its
// memory. Notes with the same text at several places are one.
type note struct {
	text string
	gpas []uint64
}

// findNotes returns the different notes in memory, by address. found counts all,
// also those that are left out beyond maxNotes.
func findNotes(ctx context.Context, m *Memory) (notes []note, found int, err error) {
	var mu sync.Mutex
	places := map[uint64]string{}
	err = eachChunk(ctx, m, func(r *Range, _ uint64, part Extent) {
		r.eachPage(part, func(off uint64, page []byte) {
			if !noteBegins(page) {
				return
			}
			text, ok := noteAt(r.Data[off:])
			if !ok {
				return
			}
			mu.Lock()
			found++
			if len(places) < maxNotes {
				places[r.GPA+off] = text
			}
			mu.Unlock()
		})
	})
	return groupNotes(places), found, err
}

func groupNotes(places map[uint64]string) []note {
	byText := map[string]int{}
	var notes []note
	for gpa, text := range places {
		i, ok := byText[text]
		if !ok {
			i = len(notes)
			byText[text] = i
			notes = append(notes, note{text: text})
		}
		notes[i].gpas = append(notes[i].gpas, gpa)
	}
	for _, n := range notes {
		slices.Sort(n.gpas)
	}
	slices.SortFunc(notes, func(a, b note) int { return cmp.Compare(a.gpas[0], b.gpas[0]) })
	return notes
}

// noteBegins says whether b begins as a note does.
func noteBegins(b []byte) bool {
	return len(b) >= noteHeader && binary.LittleEndian.Uint32(b) == noteNameLen &&
		binary.LittleEndian.Uint32(b[8:]) == 0 && string(b[12:noteHeader]) == noteName
}

// noteAt returns the text of the note that b begins with. It is copied: the
// bytes are a guest's.
func noteAt(b []byte) (string, bool) {
	if !noteBegins(b) {
		return "", false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	rest := b[noteHeader:]
	if n > noteMaxText || int(n) > len(rest) || !bytes.HasPrefix(rest[:n], []byte(noteFirstKey)) {
		return "", false
	}
	return string(rest[:n]), true
}

// facts are the lines KEY=VALUE of a note.
type facts map[string]string

func parseNote(text string) facts {
	f := facts{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			f[key] = value
		}
	}
	return f
}

// number reads a decimal number with a sign, or a hexadecimal one with 0x.
func (f facts) number(key string) (int64, error) {
	value, ok := f[key]
	if !ok {
		return 0, fmt.Errorf("the note has no %s", key)
	}
	n, err := strconv.ParseInt(value, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("the note's %s is %.40q", key, value)
	}
	return n, nil
}

// length reads a number between 0 and limit.
func (f facts) length(key string, limit int64) (uint64, error) {
	n, err := f.number(key)
	if err == nil && (n < 0 || n > limit) {
		return 0, fmt.Errorf("the note's %s is %d, beyond %d", key, n, limit)
	}
	return uint64(n), err
}

// symbol reads the address of a symbol: hexadecimal digits.
func (f facts) symbol(name string) (uint64, error) {
	value, ok := f["SYMBOL("+name+")"]
	if !ok {
		return 0, fmt.Errorf("the note has no address of %s", name)
	}
	n, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("the note's address of %s is %.40q", name, value)
	}
	return n, nil
}
