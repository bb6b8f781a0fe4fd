package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Limits of settings.
const (
	MinSegmentSize = 64 * KiB
	MaxSegmentSize = GiB
	// MinMapCache leaves room for the pages that the requests of a busy array touch at once.
	MinMapCache = 4 * MiB
	// MaxVolumeSize is that of package lsa.
	MaxVolumeSize = 4 * EiB
	// MaxDevices of an array.
	MaxDevices = 64
)

// Validate says what is wrong with the settings. It looks at nothing outside of them.
func (c *Config) Validate() error {
	for _, check := range []func() error{
		c.checkAddrs, c.checkMeta, c.checkArray, c.checkTLS, c.checkLog,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkAddrs() error {
	if c.Dir == "" {
		return Usagef("dir is empty: name the data directory, such as --dir %s", DefaultDir)
	}
	for _, s := range c.NBD {
		if _, err := ParseAddr(s); err != nil {
			return Usagef("nbd: %v", err)
		}
	}
	if _, _, err := c.HTTPAddr(); err != nil {
		return err
	}
	for _, name := range []string{NBDSocket, AdminSocket} {
		if _, err := ParseAddr("unix:" + c.DirPath(name)); err != nil {
			return Usagef("dir: %v", err)
		}
	}
	if c.MaxConnections < 1 {
		return Usagef("max-connections %d: must be at least 1", c.MaxConnections)
	}
	return nil
}

// checkMeta looks at the metadata directories: none, one, or two.
func (c *Config) checkMeta() error {
	if len(c.Meta) > 2 {
		return Usagef("%d metadata directories: there can be one or two", len(c.Meta))
	}
	for i, dir := range c.Meta {
		if dir == "" {
			return Usagef("meta is empty: name a directory")
		}
		if i > 0 && filepath.Clean(dir) == filepath.Clean(c.Meta[0]) {
			return Usagef("metadata directory %s is named twice", dir)
		}
	}
	return nil
}

// Names of the sockets in the data directory.
const (
	NBDSocket   = "nbd.sock"
	AdminSocket = "admin.sock"
)

// NBDAddrs are the addresses to serve NBD at; the socket in the data directory where none is named.
func (c *Config) NBDAddrs() []Addr {
	if len(c.NBD) == 0 {
		return []Addr{{"unix", c.DirPath(NBDSocket)}}
	}
	addrs := make([]Addr, 0, len(c.NBD))
	for _, s := range c.NBD {
		if a, err := ParseAddr(s); err == nil { // Validate has checked
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// HTTPAddr is where to serve HTTP; ok is false for nowhere.
func (c *Config) HTTPAddr() (a Addr, ok bool, err error) {
	if c.HTTP == "" || c.HTTP == "none" {
		return a, false, nil
	}
	a, err = ParseAddr(c.HTTP)
	if err == nil && a.Network != "tcp" {
		err = Usagef("address %q: want HOST:PORT; the unix socket for administration is DIR/%s", c.HTTP, AdminSocket)
	}
	if err != nil {
		return a, false, Usagef("http: %v", err)
	}
	return a, true, nil
}

func (c *Config) checkArray() error {
	if s := c.SegmentSize; s < MinSegmentSize || s > MaxSegmentSize || s&(s-1) != 0 {
		return Usagef("segment-size %v: must be a power of two from %v to %v", s, MinSegmentSize, MaxSegmentSize)
	}
	if c.MapCache < MinMapCache {
		return Usagef("map-cache %v: must be at least %v", c.MapCache, MinMapCache)
	}
	volumes, err := c.Volumes()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, v := range volumes {
		if seen[v.Name] {
			return Usagef("volume %q is named twice", v.Name)
		}
		seen[v.Name] = true
	}
	if err := c.checkUblk(); err != nil {
		return err
	}
	return c.checkDevices()
}

// checkUblk looks at the names of local disks only; whether there are such volumes is seen when they are opened.
func (c *Config) checkUblk() error {
	seen := map[string]bool{}
	for _, name := range c.Ublk {
		volume, snapshot, isSnapshot := strings.Cut(name, "@")
		err := CheckVolumeName(volume)
		if err == nil && isSnapshot {
			err = CheckVolumeName(snapshot)
		}
		if err != nil {
			return Usagef("ublk %q: %v", name, err)
		}
		if seen[name] {
			return Usagef("ublk %q is named twice", name)
		}
		seen[name] = true
	}
	return nil
}

func (c *Config) checkDevices() error {
	devices, err := c.Devices()
	if err != nil {
		return err
	}
	if len(devices) > MaxDevices {
		return Usagef("%d devices: an array has at most %d", len(devices), MaxDevices)
	}
	seen := map[string]bool{}
	for _, d := range devices {
		path := filepath.Clean(d.Path)
		if seen[path] {
			return Usagef("device %s is named twice", d.Path)
		}
		seen[path] = true
	}
	return nil
}

// Volumes are the volumes to be created if missing.
func (c *Config) Volumes() ([]VolumeSpec, error) { return parseAll(c.Volume, ParseVolumeSpec) }

// Devices are the devices named, none if the array remembers them.
func (c *Config) Devices() ([]DeviceSpec, error) { return parseAll(c.Device, ParseDeviceSpec) }

func parseAll[T any](list []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, s := range list {
		v, err := parse(s)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func (c *Config) checkTLS() error {
	switch mode := c.TLSMode(); {
	case mode != "require" && mode != "allow" && mode != "off":
		return Usagef("tls %q: must be require, allow or off", c.TLS)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return Usagef("tls-cert and tls-key belong together: one of them is missing")
	case mode != "off" && c.TLSCert == "":
		return Usagef("tls %s needs a certificate: give tls-cert and tls-key", mode)
	case c.TLSClientCA != "" && mode == "off":
		return Usagef("tls-client-ca has no effect while tls is off: give tls-cert and tls-key")
	}
	return nil
}

// TLSMode is when NBD connections are encrypted: "require", "allow" or "off".
func (c *Config) TLSMode() string {
	switch {
	case c.TLS != "":
		return c.TLS
	case c.TLSCert != "":
		return "require"
	}
	return "off"
}

func (c *Config) checkLog() error {
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return Usagef("log-format %q: must be text or json", c.LogFormat)
	}
	if _, err := c.Level(); err != nil {
		return err
	}
	if c.HTTPToken == "@" {
		return Usagef("http-token %q: the name of the file is missing", c.HTTPToken)
	}
	return nil
}

// Level is the least level to log.
func (c *Config) Level() (slog.Level, error) {
	switch c.LogLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, Usagef("log-level %q: must be debug, info, warn or error", c.LogLevel)
}

// minToken is how long a token must at least be, in bytes.
const minToken = 16

// Token is the token for changes over HTTP, "" for none.
func (c *Config) Token() (string, error) {
	token := c.HTTPToken
	if path, ok := strings.CutPrefix(token, "@"); ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", Usagef("http-token: %v", err)
		}
		token = strings.TrimSpace(string(text))
		if token == "" {
			return "", Usagef("http-token: the file %s is empty", path)
		}
	}
	if token != "" && len(token) < minToken {
		return "", Usagef("http-token: must have at least %d characters", minToken)
	}
	return token, nil
}
