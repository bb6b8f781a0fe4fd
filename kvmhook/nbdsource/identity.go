package nbdsource

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
)

// errChanged ends a source: another image's pages must never follow those of the first.
var errChanged = errors.New("it is not the image that it was")

// identity is what an lsad tells of an export in its description. The zero value is that of a server that tells
// nothing.
//
// Of something that nobody writes the volume's number says what it holds, for as long as the array lives. Of anything
// else the incarnation counts too: it changes when writes may have been lost.
type identity struct {
	readOnly    bool
	incarnation string
	volume      string
	content     string // changes with a revert; "" where the server is too old to tell
	layer       string // of a snapshot; "" also where the server is too old to tell
	array       string // "" where the server is too old to tell
}

var (
	volumeText = regexp.MustCompile(`\bincarnation ([0-9a-f]{16})-([0-9a-f]{1,16})(?:-([0-9a-f]{1,16}))?\b`)
	layerText  = regexp.MustCompile(`\blayer ([0-9a-f]{1,16})\b`)
	arrayText  = regexp.MustCompile(`\barray ([0-9a-f]{32})\b`)
)

func identify(description string, readOnly bool) identity {
	m := volumeText.FindStringSubmatch(description)
	if m == nil {
		return identity{}
	}
	id := identity{readOnly: readOnly, incarnation: m[1], volume: m[2], content: m[3]}
	if m := layerText.FindStringSubmatch(description); m != nil {
		id.layer = m[1]
	}
	if m := arrayText.FindStringSubmatch(description); m != nil {
		id.array = m[1]
	}
	return id
}

// differs says how an export is another one than the one that was, "" if it is the same for all that is known.
func (was identity) differs(now identity) string {
	other := func(what, was, now string) string { return fmt.Sprintf("its %s was %s and is %s", what, was, now) }
	access := func(id identity) string {
		if id.readOnly {
			return "read-only"
		}
		return "writable"
	}
	switch {
	case was == now:
		return ""
	case now == identity{}:
		return "the server told its incarnation and volume, and tells nothing now"
	case was == identity{}:
		return "the server told nothing of it, and tells its incarnation and volume now"
	case was.array != now.array && was.array != "" && now.array != "":
		return other("array", was.array, now.array)
	case was.volume != now.volume:
		return other("volume", was.volume, now.volume)
	case was.layer != now.layer && was.layer != "" && now.layer != "":
		return other("snapshot", was.layer, now.layer)
	case was.content != now.content && was.content != "" && now.content != "":
		return other("content", was.content, now.content) + ": it was reverted or shrunk"
	case was.readOnly != now.readOnly:
		return fmt.Sprintf("it was %s and is %s", access(was), access(now))
	case !was.readOnly && was.incarnation != now.incarnation:
		return other("incarnation", was.incarnation, now.incarnation) + ": writes may be lost"
	}
	return ""
}

// changed compares a connection with the first one.
func (s *Source) changed(now nbdclient.Info) error {
	was := s.info
	switch {
	case now.Size != was.Size:
		return fmt.Errorf("%w: it had %d bytes and has %d", errChanged, was.Size, now.Size)
	case now.MinBlock != was.MinBlock:
		return fmt.Errorf("%w: it had blocks of %d bytes and has those of %d", errChanged, was.MinBlock, now.MinBlock)
	case was.Allocation && !now.Allocation:
		return fmt.Errorf("%w: where it has holes is not told any more", errChanged)
	}
	if how := s.id.differs(identify(now.Description, now.ReadOnly())); how != "" {
		return fmt.Errorf("%w: %s", errChanged, how)
	}
	return nil
}

// Is says whether a description, which the server gave elsewhere, is that of the image that is open.
func (s *Source) Is(description string) bool {
	if s.id == (identity{}) {
		return description == s.info.Description
	}
	return s.id.differs(identify(description, s.id.readOnly)) == ""
}

const (
	textReadOnly = "read-only, "
	textWritable = "writable, "
)

// Identity implements kvmhook.Identified.
func (s *Source) Identity() string {
	switch {
	case s.id == identity{}:
		return ""
	case s.id.readOnly:
		return textReadOnly + s.info.Description
	}
	return textWritable + s.info.Description
}

// Same implements kvmhook.Identified.
func (s *Source) Same(text string) error {
	description, readOnly := strings.CutPrefix(text, textReadOnly)
	if how := identify(description, readOnly).differs(s.id); how != "" {
		return fmt.Errorf("%v: %w: %w: %s", s.target, kvmhook.ErrSource, errChanged, how)
	}
	return nil
}
