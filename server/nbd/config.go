package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// TLSMode says when a connection is encrypted.
type TLSMode uint8

const (
	// TLSOff refuses STARTTLS (the specification's NOTLS).
	TLSOff TLSMode = iota
	// TLSAllow leaves it to the client (SELECTIVETLS with no export that insists on it).
	TLSAllow
	// TLSRequire answers nothing before STARTTLS (FORCEDTLS).
	TLSRequire
)

// ParseTLSMode reads "off", "allow" or "require".
func ParseTLSMode(s string) (TLSMode, error) {
	switch s {
	case "off":
		return TLSOff, nil
	case "allow":
		return TLSAllow, nil
	case "require":
		return TLSRequire, nil
	}
	return TLSOff, fmt.Errorf("TLS mode %q: must be off, allow or require", s)
}

func (m TLSMode) String() string {
	switch m {
	case TLSAllow:
		return "allow"
	case TLSRequire:
		return "require"
	}
	return "off"
}

// Config is what a server is made of. Zero values stand for the defaults given.
type Config struct {
	Catalog Catalog // required

	TLSMode TLSMode
	TLS     *tls.Config // required unless TLSMode is TLSOff; see LoadTLS

	Logger  *slog.Logger // default: none
	Metrics Metrics      // default: none

	// MaxConnections bounds the connections of all listeners; further ones are closed at once. Default 512.
	MaxConnections int
	// MaxInFlight bounds the requests of one connection that wait for workers. Default 256.
	MaxInFlight int
	// MaxInFlightBytes bounds the payload memory of one connection, in bytes. Default 64 MiB, at least
	// 33 MiB, so that one request of the longest payload fits.
	MaxInFlightBytes int64
	// MaxBufferBytes bounds the payload memory of all connections, in bytes. Beyond it requests are
	// handled in pieces, slower. Default 256 MiB. Each busy connection takes up to 1 MiB besides.
	MaxBufferBytes int64
	// Workers bounds the requests of one connection that wait for a disk at the same time. Default 32.
	Workers int

	// HandshakeTimeout bounds the whole negotiation. Default 10 s.
	HandshakeTimeout time.Duration
	// StallTimeout is how long a client may take to accept replies, or to complete a request that it
	// began, without getting ahead. Idle connections are not limited. Default 30 s.
	StallTimeout time.Duration
}

const minInFlightBytes = MaxPayload + 1<<20

func (c *Config) setDefaults() error {
	if c.Catalog == nil {
		return errors.New("nbd: Config.Catalog is missing")
	}
	if c.TLSMode != TLSOff && c.TLS == nil {
		return fmt.Errorf("nbd: TLS mode %q needs a certificate and its key", c.TLSMode)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	defaultTo(&c.MaxConnections, 512)
	defaultTo(&c.MaxInFlight, 256)
	defaultTo(&c.MaxInFlightBytes, 64<<20)
	defaultTo(&c.MaxBufferBytes, 256<<20)
	defaultTo(&c.Workers, 32)
	defaultTo(&c.HandshakeTimeout, 10*time.Second)
	defaultTo(&c.StallTimeout, 30*time.Second)
	c.MaxInFlightBytes = max(c.MaxInFlightBytes, minInFlightBytes)
	return nil
}

func defaultTo[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
