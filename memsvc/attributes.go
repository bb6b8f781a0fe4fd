package memsvc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// stagingPrefix begins the name of a volume that is not an image yet, or no longer.
const stagingPrefix = "importing."

// Kinds of volumes, as their attributes say.
const (
	kindImage   = "image"
	kindStaging = "staging"
)

// maxAttributes of a volume in bytes: what Store has to take.
const maxAttributes = 32 << 10

// attributes are the JSON in a volume's attributes.
type attributes struct {
	Kind       string            `json:"kind"`
	Version    int               `json:"version"`
	Manifest   json.RawMessage   `json:"manifest,omitempty"`    // image
	WorkingSet *storedWorkingSet `json:"working_set,omitempty"` // image
	Staging    *staging          `json:"staging,omitempty"`
}

// staging says what belongs to an image that is being made or deleted, and has to go with it.
type staging struct {
	Image   string      `json:"image"` // that it becomes, or was
	Since   time.Time   `json:"since"`
	Volumes []VolumeRef `json:"volumes,omitempty"`
}

// kindOf is the kind of a volume, or "" for one that is not this package's.
func kindOf(raw []byte) string {
	if !bytes.Contains(raw, []byte(`"kind"`)) {
		return "" // of most volumes there is nothing to parse
	}
	var a struct {
		Kind string `json:"kind"`
	}
	if json.Unmarshal(raw, &a) != nil || a.Kind != kindImage && a.Kind != kindStaging {
		return ""
	}
	return a.Kind
}

// Class of a volume, for who lists volumes of all sorts.
type Class int

// The classes.
const (
	ClassVolume Class = iota // not this package's
	ClassImage               // an image or a fork: found with Service.Get
	ClassHidden              // an image in the making: nobody's business
)

// Classify tells what a volume is from its name and attributes.
func Classify(name string, attributes []byte) Class {
	switch kind := kindOf(attributes); {
	case kind == "":
		return ClassVolume
	case kind == kindStaging || strings.HasPrefix(name, stagingPrefix):
		return ClassHidden
	}
	return ClassImage
}

// decodeAttributes reads and checks the attributes of an image or a staging volume.
func decodeAttributes(raw []byte) (*attributes, error) {
	if len(raw) > maxAttributes {
		return nil, fmt.Errorf("%w: attributes of %d bytes", ErrDamaged, len(raw))
	}
	a := &attributes{}
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, fmt.Errorf("%w: attributes: %w", ErrDamaged, err)
	}
	if a.Version != formatVersion {
		return nil, fmt.Errorf("%w: attributes have version %d, this program reads %d", ErrInvalid, a.Version, formatVersion)
	}
	if a.Kind == kindStaging && a.Staging == nil {
		return nil, fmt.Errorf("%w: attributes of kind %q say nothing", ErrDamaged, a.Kind)
	}
	return a, nil
}

// manifest reads and checks the manifest of an image's attributes.
func (a *attributes) manifest() (*Manifest, error) {
	if a.Kind != kindImage {
		return nil, fmt.Errorf("%w: attributes of kind %q where an image's were expected", ErrDamaged, a.Kind)
	}
	m := &Manifest{}
	if err := json.Unmarshal(a.Manifest, m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	return m, nil
}

func (a *attributes) encode() ([]byte, error) {
	a.Version = formatVersion
	raw, err := json.Marshal(a)
	if err == nil && len(raw) > maxAttributes {
		err = fmt.Errorf("%w: attributes of %d bytes, there is room for %d", ErrInvalid, len(raw), maxAttributes)
	}
	return raw, err
}

func encodeStaging(s staging) ([]byte, error) {
	return (&attributes{Kind: kindStaging, Staging: &s}).encode()
}
