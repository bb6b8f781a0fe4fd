package kvmhook

import (
	"encoding/binary"
	"fmt"
)

// keptIdentity is what the memory file has behind the bits: a word with the length of the image's identity, in bytes, and
// that identity, filled up with zeros. Files of earlier versions of this program end before.
//
// Another image may have the name by the time that a hook goes on, above all after a hook that ended because of that.

func identityOf(src Source) string {
	if i, ok := src.(Identified); ok {
		return i.Identity()
	}
	return ""
}

func identityWords(identity string) int {
	if identity == "" {
		return 0
	}
	return 1 + (len(identity)+7)/8
}

func (k *kept) writeIdentity(at int, identity string) {
	if identity == "" {
		return
	}
	k.words[at].Store(uint64(len(identity)))
	p := append([]byte(identity), make([]byte, 7)...)
	for i := range identityWords(identity) - 1 {
		k.words[at+1+i].Store(binary.NativeEndian.Uint64(p[8*i:]))
	}
}

// checkIdentity compares the image that the file is about with that of a source, as far as both are known.
func (k *kept) checkIdentity(at int, src Source) error {
	i, ok := src.(Identified)
	if !ok || at == len(k.words) {
		return nil
	}
	n := k.words[at].Load()
	if n == 0 || n > maxIdentity || int(n+7)/8 > len(k.words)-at-1 {
		return fmt.Errorf("%w: its memory file has an identity of the image of %d bytes", ErrNotKept, n)
	}
	var p []byte
	for j := range int(n+7) / 8 {
		p = binary.NativeEndian.AppendUint64(p, k.words[at+1+j].Load())
	}
	if err := i.Same(string(p[:n])); err != nil {
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	return nil
}
