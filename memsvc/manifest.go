package memsvc

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// PageSize in bytes: the unit in which memory is stored and elided.
const PageSize = 4096

// Limits of a manifest.
const (
	MaxBlocks     = 128
	MaxRanges     = 256      // of all blocks together
	MaxRAM        = 64 << 40 // bytes
	MaxState      = 4 << 30  // bytes of device state
	MaxVolumes    = 32       // whose snapshots belong to one image
	maxName       = 255      // of a RAM block (QEMU's are shorter than 256 bytes)
	maxText       = 500
	maxSteps      = 16
	maxManifest   = 7 << 10 // bytes of JSON; with the working set it has to fit into the attributes of a volume
	maxBlockPage  = 1 << 30
	formatVersion = 1
)

// Manifest says what an image is.
type Manifest struct {
	Created  time.Time   `json:"created"`
	Source   string      `json:"source"`            // "raw", "elf" or "qemu"
	Machine  string      `json:"machine,omitempty"` // as the VMM calls it
	Kernel   string      `json:"kernel,omitempty"`  // release of the guest's kernel, if that was found
	Blocks   []Block     `json:"blocks"`
	Pages    PageCounts  `json:"pages"`
	Elision  Elision     `json:"elision"`
	State    State       `json:"state"`
	Parent   string      `json:"parent,omitempty"` // the image that this one was made from, by its name then
	Volumes  []VolumeRef `json:"volumes,omitempty"`
	Steps    []Step      `json:"steps,omitempty"`
	ForkedAt time.Time   `json:"forked_at,omitzero"`
}

// Block is a RAM block: consecutive bytes of the image, in the guest at the addresses of its ranges, in order.
type Block struct {
	Name     string  `json:"name"`
	Offset   int64   `json:"offset"`              // in the image
	Size     int64   `json:"size"`                // bytes, a multiple of PageSize
	PageSize int64   `json:"page_size,omitempty"` // of the memory that backed it, in bytes; 0 is PageSize
	Ranges   []Range `json:"ranges,omitempty"`    // none: not known, or not mapped (a ROM of QEMU's)
}

// Range of guest-physical addresses.
type Range struct {
	GPA  uint64 `json:"gpa"`
	Size int64  `json:"size"`
}

// PageCounts say where the guest's pages went: Total = InUse + Free + Zero.
type PageCounts struct {
	Total int64 `json:"total"`
	InUse int64 `json:"in_use"` // stored
	Free  int64 `json:"free"`   // free in the guest, and so elided
	Zero  int64 `json:"zero"`   // all zeros, and so elided
	// Shared of those in use are the parent's, unchanged.
	Shared int64 `json:"shared,omitempty"`
}

// Elision says whether free pages were elided, and why not.
type Elision struct {
	Free bool   `json:"free"`
	Why  string `json:"why"`
}

// State is the VMM's device state behind the RAM.
type State struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"` // 0: there is none
	SHA256 string `json:"sha256,omitempty"`
}

// VolumeRef is a volume of the VM, and what of it belongs to the image.
type VolumeRef struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"`        // of the volume, taken in the same pause
	Clone    string `json:"clone,omitempty"` // of the snapshot, made for this fork
}

// Step of an import, and how long it took.
type Step struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// RAM is the number of bytes of all blocks.
func (m *Manifest) RAM() int64 {
	var n int64
	for i := range m.Blocks {
		n += m.Blocks[i].Size
	}
	return n
}

// Block finds a block by name.
func (m *Manifest) Block(name string) (Block, bool) {
	for _, b := range m.Blocks {
		if b.Name == name {
			return b, true
		}
	}
	return Block{}, false
}

// Validate says what is wrong with a manifest.
func (m *Manifest) Validate() error {
	if err := validateBlocks(m.Blocks); err != nil {
		return err
	}
	for _, text := range []string{m.Source, m.Machine, m.Kernel, m.Elision.Why, m.Parent} {
		if len(text) > maxText || !printable(text) {
			return fmt.Errorf("%w: the text %.40q of %d bytes", ErrInvalid, text, len(text))
		}
	}
	if len(m.Steps) > maxSteps || len(m.Volumes) > MaxVolumes {
		return fmt.Errorf("%w: %d steps, %d volumes", ErrInvalid, len(m.Steps), len(m.Volumes))
	}
	if err := m.State.validate(m.RAM()); err != nil {
		return err
	}
	return m.Pages.validate(m.RAM() / PageSize)
}

func (s *State) validate(ram int64) error {
	if s.Length < 0 || s.Length > MaxState {
		return fmt.Errorf("%w: device state of %d bytes", ErrInvalid, s.Length)
	}
	if s.Length == 0 {
		return nil
	}
	if sum, err := hex.DecodeString(s.SHA256); s.Offset != ram || err != nil || len(sum) != 32 {
		return fmt.Errorf("%w: device state at %d with checksum %q", ErrInvalid, s.Offset, s.SHA256)
	}
	return nil
}

func (c *PageCounts) validate(total int64) error {
	for _, n := range []int64{c.InUse, c.Free, c.Zero, c.Shared} {
		if n < 0 || n > total {
			return fmt.Errorf("%w: %d of %d pages", ErrInvalid, n, total)
		}
	}
	if c.Total != total || c.InUse+c.Free+c.Zero != total || c.Shared > c.InUse {
		return fmt.Errorf("%w: page counts %+v, the RAM has %d", ErrInvalid, *c, total)
	}
	return nil
}

func validateBlocks(blocks []Block) error {
	if len(blocks) == 0 || len(blocks) > MaxBlocks {
		return fmt.Errorf("%w: %d RAM blocks, there can be 1 to %d", ErrInvalid, len(blocks), MaxBlocks)
	}
	names, next, ranges := map[string]bool{}, int64(0), 0
	for i := range blocks {
		b := &blocks[i]
		if names[b.Name] || b.Offset != next {
			return fmt.Errorf("%w: RAM block %q at %d: a second one of that name, or not at %d", ErrInvalid, b.Name, b.Offset, next)
		}
		if err := b.validate(); err != nil {
			return fmt.Errorf("RAM block %q: %w", b.Name, err)
		}
		names[b.Name] = true
		ranges += len(b.Ranges)
		if next += b.Size; next > MaxRAM || ranges > MaxRanges {
			return fmt.Errorf("%w: more than %d bytes of RAM, or than %d ranges", ErrInvalid, int64(MaxRAM), MaxRanges)
		}
	}
	return nil
}

func (b *Block) validate() error {
	if b.Name == "" || len(b.Name) > maxName || !printable(b.Name) {
		return fmt.Errorf("%w: not a name", ErrInvalid)
	}
	if b.Size <= 0 || b.Size%PageSize != 0 || b.Size > MaxRAM {
		return fmt.Errorf("%w: size %d, it must be a multiple of %d", ErrInvalid, b.Size, PageSize)
	}
	if p := b.PageSize; p != 0 && (p < PageSize || p > maxBlockPage || p&(p-1) != 0 || b.Size%p != 0) {
		return fmt.Errorf("%w: page size %d", ErrInvalid, p)
	}
	var total int64
	for i, r := range b.Ranges {
		if r.Size <= 0 || r.Size%PageSize != 0 || r.GPA%PageSize != 0 || r.Size > b.Size-total || r.GPA > 1<<52 {
			return fmt.Errorf("%w: range of %d bytes at %#x", ErrInvalid, r.Size, r.GPA)
		}
		if i > 0 && r.GPA < b.Ranges[i-1].GPA+uint64(b.Ranges[i-1].Size) {
			return fmt.Errorf("%w: ranges at %#x and %#x overlap or are not in order", ErrInvalid, b.Ranges[i-1].GPA, r.GPA)
		}
		total += r.Size
	}
	if len(b.Ranges) > 0 && total != b.Size {
		return fmt.Errorf("%w: ranges have %d bytes, the block has %d", ErrInvalid, total, b.Size)
	}
	return nil
}

// printable says whether a text can be shown on a terminal.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// encode makes JSON of a valid manifest.
func (m *Manifest) encode() (json.RawMessage, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	text, err := json.Marshal(m)
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("%w: it takes %d bytes and may take %d: too many RAM blocks or volumes", ErrInvalid, len(text), maxManifest)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return text, nil
}
