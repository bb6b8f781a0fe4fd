package main

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"lsad/lsa"
	"lsad/server/ublk"
)

// keyFor is what a device of a volume or snapshot carries in the kernel: which array, and which of its contents. It stays
// the same when a volume is renamed, and becomes another one when it is reverted or shrinks, as is done where a server did not
// see the device.
func (l *localDisks) keyFor(v *lsa.VolumeInfo, snapshot string) uint64 {
	what := strconv.FormatUint(v.ID, 10) + "@" + snapshot
	if snapshot == "" && v.Turns > 0 {
		what += "@" + strconv.FormatUint(v.Turns, 10) // no snapshot has such a name
	}
	return uint64(l.arrayKey())<<32 | uint64(hash32(what))
}

func (l *localDisks) arrayKey() uint32 { return hash32(l.server.array.Status().Array) }

func hash32(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s)) // it returns no errors
	return h.Sum32()
}

// nameOf is the volume or snapshot that a key means, "" if there is none.
func (l *localDisks) nameOf(key uint64) string {
	for _, v := range l.server.array.Volumes() {
		if l.keyFor(&v, "") == key {
			return v.Name
		}
		for _, s := range v.Snapshots {
			if l.keyFor(&v, s.Name) == key {
				return v.Name + "@" + s.Name
			}
		}
	}
	return ""
}

// keyOf is the key of a volume or snapshot.
func (l *localDisks) keyOf(name string) (uint64, error) {
	volume, snapshot, _ := strings.Cut(name, "@")
	v, err := l.server.array.Volume(volume)
	if err != nil {
		return 0, err
	}
	if snapshot == "" && strings.Contains(name, "@") {
		return 0, fmt.Errorf("%q: the name of a snapshot is missing behind the @", name)
	}
	key := l.keyFor(&v, snapshot)
	if found := l.nameOf(key); found != "" && found != name {
		return 0, fmt.Errorf("%s and %s cannot be told apart in the kernel, which is a chance of one in four thousand millions", name, found)
	}
	return key, nil
}

// ours are the devices in the kernel that belong to this array.
func (l *localDisks) ours() ([]ublk.Info, error) {
	all, err := ublk.Devices()
	mine := l.arrayKey()
	return slices.DeleteFunc(all, func(i ublk.Info) bool { return uint32(i.Key>>32) != mine }), err
}
