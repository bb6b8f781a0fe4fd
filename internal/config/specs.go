package config

import (
	"regexp"
	"strings"
)

// BlockSize is what sizes of volumes must be multiples of, in bytes.
const BlockSize = 4096

// VolumeSpec is a volume to be created if it is missing: "NAME:SIZE".
type VolumeSpec struct {
	Name string
	Size Size
}

func (v VolumeSpec) String() string { return v.Name + ":" + v.Size.String() }

// volumeName is what a volume or a snapshot may be called.
var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckVolumeName says what is wrong with a name.
func CheckVolumeName(name string) error {
	if !volumeName.MatchString(name) {
		return Usagef("name %q: use 1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit", name)
	}
	return nil
}

// CheckVolumeSize says what is wrong with the size of a volume.
func CheckVolumeSize(size Size) error {
	if size <= 0 || size%BlockSize != 0 {
		return Usagef("size %v: a volume's size is a multiple of 4 KiB above zero", size)
	}
	if size > MaxVolumeSize {
		return Usagef("size %v: the largest volume has %v", size, MaxVolumeSize)
	}
	return nil
}

// ParseVolumeSpec reads "NAME:SIZE".
func ParseVolumeSpec(s string) (v VolumeSpec, err error) {
	name, size, ok := strings.Cut(s, ":")
	if !ok {
		return v, Usagef("volume %q: want NAME:SIZE, such as vol0:10GiB", s)
	}
	if err := CheckVolumeName(name); err != nil {
		return v, Usagef("volume %q: %v", s, err)
	}
	if v.Size, err = ParseSize(size); err == nil {
		err = CheckVolumeSize(v.Size)
	}
	if err != nil {
		return v, Usagef("volume %q: %v", s, err)
	}
	v.Name = name
	return v, nil
}

// DeviceSpec is a device of the array: "PATH" for one that exists, or "PATH:SIZE" for a file that
// is made with that size when the array is created.
type DeviceSpec struct {
	Path string
	Size Size // 0: what is there
}

func (d DeviceSpec) String() string {
	if d.Size == 0 {
		return d.Path
	}
	return d.Path + ":" + d.Size.String()
}

// ParseDeviceSpec reads "PATH" or "PATH:SIZE". A colon belongs to the path unless a size follows
// the last one: the stable names below /dev/disk/by-path have colons.
func ParseDeviceSpec(s string) (DeviceSpec, error) {
	if s == "" {
		return DeviceSpec{}, Usagef("device %q: want PATH or PATH:SIZE", s)
	}
	i := strings.LastIndexByte(s, ':')
	if i > 0 && i == len(s)-1 {
		return DeviceSpec{}, Usagef("device %q: want PATH, or PATH:SIZE with a size above zero", s)
	}
	if i < 0 || !looksLikeSize(s[i+1:]) && (strings.HasPrefix(s, "/dev/") || !isNumber(s[i+1:])) {
		return DeviceSpec{Path: s}, nil
	}
	size, err := ParseSize(s[i+1:])
	if err != nil {
		return DeviceSpec{}, Usagef("device %q: %v", s, err)
	}
	if i == 0 {
		return DeviceSpec{}, Usagef("device %q: the path is missing", s)
	}
	return DeviceSpec{Path: s[:i], Size: size}, nil
}

// isNumber says whether s is a number, maybe with some unit: a size, but below /dev, where names end in numbers.
var isNumber = regexp.MustCompile(`^[0-9][0-9.,]* ?[A-Za-z]{0,3}$`).MatchString

// looksLikeSize says whether s was meant as a size, right or wrong: a number with a unit, or one of seven digits
// and more, since no device has less than a MiB. Names below /dev/disk/by-path end in shorter ones.
var looksLikeSize = regexp.MustCompile(`^(-?[0-9][0-9.,]* ?(?i:[kmgtpe]i?b?|b)|[0-9]{7,})$`).MatchString
