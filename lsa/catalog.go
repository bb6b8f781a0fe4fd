package lsa

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// catalog is the table of volumes. The tree of layers is in the map.
type catalog struct {
	mu      sync.Mutex
	volumes map[string]*volume
	nextID  uint64 // of volumes and layers alike; never used twice

	// Guarded by Array.commit.mu: what the next checkpoint has to write.
	dirtyVolumes map[uint64]bool
	dirtyLayers  map[uint64]bool
}

// volume is one volume. The exported fields are stored.
type volume struct {
	Name      string     `json:"name"`
	ID        uint64     `json:"id"`
	Size      int64      `json:"size"`
	Head      uint64     `json:"head"`
	Copies    int        `json:"copies,omitempty"` // of each block; 0 is 1
	Created   time.Time  `json:"created"`
	Origin    string     `json:"origin,omitempty"`
	Snapshots []snapshot `json:"snapshots,omitempty"`
	// Sealed: it is never written again, and clones stand on its head itself.
	Sealed     bool            `json:"sealed,omitempty"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
	// Turns is how often its content became another one without being written: by a revert, or where it shrank.
	Turns uint64 `json:"turns,omitempty"`

	// gate: data operations share it, changes to what the volume is have it alone.
	gate    sync.RWMutex
	stripes stripes
	size    atomic.Int64  // = Size
	head    atomic.Uint64 // = Head
	handles map[*Handle]bool
}

type snapshot struct {
	Name    string    `json:"name"`
	Layer   uint64    `json:"layer"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// adminChange is the payload of an EntryAdmin record.
type adminChange struct {
	Op       string    `json:"op"`
	Volume   string    `json:"volume"`
	Snapshot string    `json:"snapshot,omitempty"`
	To       string    `json:"to,omitempty"` // rename: the new name; clone: the new volume
	ID       uint64    `json:"id,omitempty"` // of the volume that is created
	Layer    uint64    `json:"layer,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Copies   int       `json:"copies,omitempty"` // create
	Seal     bool      `json:"seal,omitempty"`   // update
	Time     time.Time `json:"time,omitzero"`
	// create, update: what they are from then on
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

func newCatalog() *catalog {
	return &catalog{volumes: map[string]*volume{}, nextID: 1, dirtyVolumes: map[uint64]bool{}, dirtyLayers: map[uint64]bool{}}
}

func (c *catalog) add(v *volume) {
	v.handles = map[*Handle]bool{}
	v.size.Store(v.Size)
	v.head.Store(v.Head)
	c.volumes[v.Name] = v
}

func (c *catalog) take(n uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.nextID
	c.nextID += n
	return id
}

func (v *volume) snapshot(name string) *snapshot {
	for i := range v.Snapshots {
		if v.Snapshots[i].Name == name {
			return &v.Snapshots[i]
		}
	}
	return nil
}

// origin is what a clone stands on: a snapshot or, without a name, the volume
// itself if it is sealed. It is nil if there is no such thing.
func (v *volume) origin(snap string) *snapshot {
	if snap != "" {
		return v.snapshot(snap)
	}
	if !v.Sealed {
		return nil
	}
	return &snapshot{Layer: v.Head, Size: v.Size}
}

func originName(volume, snap string) string {
	if snap == "" {
		return volume
	}
	return volume + "@" + snap
}

// find returns a volume; the error names it.
func (c *catalog) find(name string) (*volume, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.volumes[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("volume %q %w", name, ErrNotFound)
}

// named returns every layer that a volume or a snapshot stands on directly.
func (c *catalog) named() map[uint64]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	layers := map[uint64]bool{}
	for _, v := range c.volumes {
		layers[v.Head] = true
		for _, s := range v.Snapshots {
			layers[s.Layer] = true
		}
	}
	return layers
}

func (c *catalog) sorted() []*volume {
	all := make([]*volume, 0, len(c.volumes))
	for _, v := range c.volumes {
		all = append(all, v)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// applyAdmin changes the catalogue and the tree as a logged change says. It is
// deterministic: recovery replays it. commit.mu is held.
func (a *Array) applyAdmin(payload []byte) error {
	var ch adminChange
	if err := json.Unmarshal(payload, &ch); err != nil {
		return fmt.Errorf("administrative record: %w: %w", format.ErrInvalid, err)
	}
	c := a.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID = max(c.nextID, ch.ID+1, ch.Layer+1)
	v := c.volumes[ch.Volume]
	if (v == nil) != (ch.Op == "create") {
		return fmt.Errorf("administrative record: %w: %s of volume %q, which is not as it was", format.ErrInvalid, ch.Op, ch.Volume)
	}
	switch ch.Op {
	case "create":
		v = &volume{Name: ch.Volume, ID: ch.ID, Size: ch.Size, Head: ch.Layer, Copies: ch.Copies, Created: ch.Time, Attributes: ch.Attributes}
		a.noteCopies(v.Copies)
		a.updateLimit()
		a.addLayer(blockmap.Layer{ID: ch.Layer})
		c.add(v)
	case "clone":
		s := v.origin(ch.Snapshot)
		if s == nil {
			return missingSnapshot(&ch)
		}
		a.addLayer(blockmap.Layer{ID: ch.Layer, Parent: s.Layer})
		v = &volume{Name: ch.To, ID: ch.ID, Size: s.Size, Head: ch.Layer, Copies: v.Copies, Created: ch.Time, Origin: originName(ch.Volume, ch.Snapshot), Attributes: v.Attributes}
		c.add(v)
	case "snapshot":
		v.Snapshots = append(v.Snapshots, snapshot{Name: ch.Snapshot, Layer: v.Head, Size: v.Size, Created: ch.Time})
		a.setHead(v, ch.Layer, v.Head)
	case "revert":
		s := v.snapshot(ch.Snapshot)
		if s == nil {
			return missingSnapshot(&ch)
		}
		v.Turns++
		v.Size = s.Size
		v.size.Store(s.Size)
		a.setHead(v, ch.Layer, s.Layer)
	case "unsnapshot":
		for i := range v.Snapshots {
			if v.Snapshots[i].Name == ch.Snapshot {
				v.Snapshots = append(v.Snapshots[:i:i], v.Snapshots[i+1:]...)
				break
			}
		}
	case "delete":
		delete(c.volumes, v.Name)
	case "rename":
		delete(c.volumes, v.Name)
		v.Name = ch.To
		c.volumes[v.Name] = v
	case "update":
		if ch.To != "" {
			delete(c.volumes, v.Name)
			v.Name = ch.To
			c.volumes[v.Name] = v
		}
		if ch.Attributes != nil {
			v.Attributes = ch.Attributes
		}
		v.Sealed = v.Sealed || ch.Seal
	case "resize":
		if ch.Size < v.Size {
			v.Turns++
		}
		v.Size = ch.Size
		v.size.Store(ch.Size)
	default:
		return fmt.Errorf("administrative record: %w: unknown operation %q", format.ErrInvalid, ch.Op)
	}
	c.dirtyVolumes[v.ID] = true
	return nil
}

// noteCopies: from now on there may be blocks with so many copies.
func (a *Array) noteCopies(copies int) {
	if copies == 2 {
		a.twoCopies.Store(true)
	}
}

func missingSnapshot(ch *adminChange) error {
	return fmt.Errorf("administrative record: %w: %s of %s@%s, which is not there", format.ErrInvalid, ch.Op, ch.Volume, ch.Snapshot)
}

func (a *Array) addLayer(l blockmap.Layer) {
	a.blocks.Layers.Add(l)
	a.catalog.dirtyLayers[l.ID] = true
}

func (a *Array) setHead(v *volume, layer, parent uint64) {
	a.addLayer(blockmap.Layer{ID: layer, Parent: parent})
	v.Head = layer
	v.head.Store(layer)
}

// splitName cuts "volume@snapshot"; snapshot is "" for a volume. "volume@" is neither: where a script has lost the
// snapshot's name it does not mean the volume.
func splitName(name string) (volume, snapshot string, err error) {
	volume, snapshot, isSnapshot := strings.Cut(name, "@")
	if isSnapshot && snapshot == "" {
		return "", "", fmt.Errorf("snapshot %q %w", name, ErrNotFound)
	}
	return volume, snapshot, nil
}

// CheckName returns an error, wrapping ErrInvalid, if name cannot be that of
// a volume or a snapshot: 1 to 63 letters, digits, '.', '_', '-', the first a
// letter or a digit.
func CheckName(name string) error {
	ok := len(name) > 0 && len(name) < 64
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("._-", c) >= 0
	}
	if !ok {
		return fmt.Errorf("name %q: %w: use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or a digit", name, ErrInvalid)
	}
	return nil
}
