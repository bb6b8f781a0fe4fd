package config

import (
	"bytes"
	"path/filepath"
	"reflect"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// Config is every setting of lsad serve.
type Config struct {
	Dir    string   `toml:"dir"`
	Meta   []string `toml:"meta"`   // directories; empty: DIR/meta, or what the array remembers
	NBD    []string `toml:"nbd"`    // addresses; empty: the socket in Dir
	HTTP   string   `toml:"http"`   // an address, or "none"
	Volume []string `toml:"volume"` // NAME:SIZE
	Device []string `toml:"device"` // PATH[:SIZE]
	Ublk   []string `toml:"ublk"`   // VOLUME or VOLUME@SNAPSHOT

	SegmentSize Size `toml:"segment-size"`
	MapCache    Size `toml:"map-cache"`
	Degraded    bool `toml:"degraded"`

	TLS         string `toml:"tls"` // require, allow, off; "": require with a certificate, else off
	TLSCert     string `toml:"tls-cert"`
	TLSKey      string `toml:"tls-key"`
	TLSClientCA string `toml:"tls-client-ca"`
	Insecure    bool   `toml:"insecure"`
	Group       string `toml:"group"`
	HTTPToken   string `toml:"http-token"` // the token, or "@FILE"

	MaxConnections int    `toml:"max-connections"`
	LogFormat      string `toml:"log-format"`
	LogLevel       string `toml:"log-level"`
}

// DefaultDir is the data directory where none is named.
const DefaultDir = "./lsad-data"

// Default is what serve does without a flag and without a file.
func Default() *Config {
	return &Config{
		Dir:            DefaultDir,
		HTTP:           "127.0.0.1:10810",
		SegmentSize:    32 * MiB,
		MapCache:       256 * MiB,
		MaxConnections: 512,
		LogFormat:      "text",
		LogLevel:       "info",
	}
}

// Flags adds a flag for each setting, which writes to c and shows c's value as its default.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Dir, "dir", c.Dir, "data `DIR`: metadata, sockets, and device files unless --device says otherwise")
	fs.StringArrayVar(&c.Meta, "meta", c.Meta, "keep the array's metadata in `DIR`; give it twice, on two disks, to survive the loss of one; remembered (default DIR/meta)")
	fs.StringArrayVar(&c.NBD, "nbd", c.NBD, "serve NBD at `ADDR`, unix:PATH or HOST:PORT; may be repeated (default unix:DIR/nbd.sock)")
	fs.StringVar(&c.HTTP, "http", c.HTTP, "serve status and metrics over HTTP at `ADDR`; none for no HTTP")
	fs.StringArrayVar(&c.Volume, "volume", c.Volume, "create a volume if it is missing, `NAME:SIZE`; may be repeated (default vol0:10GiB in a new array)")
	fs.StringArrayVar(&c.Device, "device", c.Device, "a file or block device of the array, `PATH[:SIZE]`; with SIZE it is made in a new array; may be repeated and is remembered (default four files of 4GiB)")
	fs.StringArrayVar(&c.Ublk, "ublk", c.Ublk, "make `VOLUME` a disk of this machine, /dev/ublkbN; may be repeated")
	fs.Var(&c.SegmentSize, "segment-size", "segment size of a new array, a power of two from 64KiB to 1GiB")
	fs.Var(&c.MapCache, "map-cache", "memory for the block map")
	fs.BoolVar(&c.Degraded, "degraded", c.Degraded, "open the array with a device missing: read-only, or for good where volumes have two copies")
	fs.StringVar(&c.TLS, "tls", c.TLS, "TLS on NBD: `MODE` require, allow or off (default require with --tls-cert, else off)")
	fs.StringVar(&c.TLSCert, "tls-cert", c.TLSCert, "server certificate chain, a PEM `FILE`")
	fs.StringVar(&c.TLSKey, "tls-key", c.TLSKey, "key of the certificate, a PEM `FILE`")
	fs.StringVar(&c.TLSClientCA, "tls-client-ca", c.TLSClientCA, "accept only clients with a certificate of these authorities, a PEM `FILE`")
	fs.BoolVar(&c.Insecure, "insecure", c.Insecure, "allow listening beyond this machine without TLS")
	fs.StringVar(&c.Group, "group", c.Group, "let the members of this `GROUP` use the sockets")
	fs.StringVar(&c.HTTPToken, "http-token", c.HTTPToken, "allow changes over HTTP to who sends this `TOKEN`, or the one in the file named by @FILE")
	fs.IntVar(&c.MaxConnections, "max-connections", c.MaxConnections, "the most NBD connections at a time, `N`")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`FORMAT` of the log on standard error, text or json")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "least `LEVEL` to log: debug, info, warn or error")
}

// override sets in c every flag that was given on the command line.
func (c *Config) override(given *pflag.FlagSet) error {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.Flags(own)
	var err error
	given.Visit(func(f *pflag.Flag) {
		to := own.Lookup(f.Name)
		if to == nil || err != nil {
			return // a flag of the command, not a setting
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			err = to.Value.(pflag.SliceValue).Replace(list.GetSlice())
			return
		}
		err = to.Value.Set(f.Value.String())
	})
	return err
}

// TOML is the configuration as a file that Load reads back to the same.
func (c *Config) TOML() ([]byte, error) {
	all := *c
	for v, i := reflect.ValueOf(&all).Elem(), 0; i < v.NumField(); i++ { // a list that is nil would be left out
		if f := v.Field(i); f.Kind() == reflect.Slice && f.IsNil() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
	var buf bytes.Buffer
	enc := toml.NewEncoder(&buf)
	err := enc.Encode(all)
	return buf.Bytes(), err
}

// DirPath is the path of a file in the data directory.
func (c *Config) DirPath(name string) string { return filepath.Join(c.Dir, name) }
