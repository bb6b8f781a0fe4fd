package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// flags parses a command line as serve does.
func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	Default().Flags(fs)
	fs.Bool("print-config", false, "a flag that is no setting")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lsad.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEverySettingIsAFlagAndAKey(t *testing.T) {
	fs := flags(t)
	keys := map[string]bool{"print-config": true}
	for _, key := range Keys() {
		keys[key] = true
		if fs.Lookup(key) == nil {
			t.Errorf("there is no flag --%s", key)
		}
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if !keys[f.Name] {
			t.Errorf("there is no key %s", f.Name)
		}
	})
}

func TestLoadPrecedence(t *testing.T) {
	path := writeConfig(t, `
dir = "/srv/lsad"
nbd = ["unix:/run/a.sock", "127.0.0.1:10809"]
map-cache = "64MiB"
segment-size = 1048576
max-connections = 7
`)
	c, err := Load(path, flags(t, "--map-cache=128M", "--nbd=unix:b.sock", "--volume=v:1G", "--degraded", "--print-config"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Dir, want.NBD = "/srv/lsad", []string{"unix:b.sock"}
	want.MapCache, want.SegmentSize = 128*MiB, MiB
	want.MaxConnections, want.Degraded = 7, true
	want.Volume = []string{"v:1G"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestTOMLRoundTrip(t *testing.T) {
	c, err := Load("", flags(t, "--volume=a:1GiB", "--volume=b:4KiB", "--device=/dev/disk/by-path/pci-0:1-lun", "--nbd=[::1]:10809",
		"--http=none", "--tls-cert=c.pem", "--tls-key=k.pem", "--group=disk", "--http-token=sixteen or more characters \"x\"", "--log-format=json"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(writeConfig(t, string(text)), nil)
	if err != nil {
		t.Fatalf("%v, of\n%s", err, text)
	}
	if text2, _ := again.TOML(); string(text2) != string(text) {
		t.Errorf("printed\n%s\nread back and printed\n%s", text, text2)
	}
}

func TestBadConfig(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"\n\nmapcache = \"1GiB\"\n", `line 3: unknown key "mapcache"; did you mean "map-cache"?`},
		{"# map_cache\nmap_cache = \"1GiB\"\n", `line 2: unknown key "map_cache"; did you mean "map-cache"?`},
		{"dir = \"a\"\n[tsl]\ncert = \"x\"\n", `line 2: unknown key "tsl"; did you mean "tls"?`},
		{"zzzzzzzzzz = 1\n", `line 1: unknown key "zzzzzzzzzz"; lsad serve --print-config`},
		{"volumes = []\nhtpp = \"none\"\n", `did you mean "http"?`},
		{"map-cache = 12.5\n", `size "12.5": not a whole number`},
		{"map-cache = true\n", `size "true"`},
		{"dir = \"a\"\nmap-cache = \"many\"\n", `line 2: size "many"`},
		{"dir = \"a\"\nmap-cache = \"-5MiB\"\n", `line 2: size "-5MiB": must be above zero`},
		{"dir = 5\n", "dir"},
		{"dir = \"a\n", "line 1"},
		{"dir = \"a\"\ndir = \"b\"\n", "line 2"},
		{"max-connections = \"many\"\n", "max-connections"},
	} {
		_, err := Load(writeConfig(t, tt.text), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrUsage) {
			t.Errorf("config %q: %v\nwant an ErrUsage with %s", tt.text, err, tt.want)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--dir="}, "dir is empty"},
		{[]string{"--dir=" + strings.Repeat("x", 120)}, "shorter or a relative path"},
		{[]string{"--meta="}, "meta is empty"},
		{[]string{"--meta=a", "--meta=./a"}, "named twice"},
		{[]string{"--meta=a", "--meta=b", "--meta=c"}, "one or two"},
		{[]string{"--nbd=10809"}, "want unix:PATH or HOST:PORT"},
		{[]string{"--nbd=unix:"}, "path of the socket is missing"},
		{[]string{"--nbd=localhost:nbd"}, "port must be a number"},
		{[]string{"--nbd=localhost:65536"}, "port must be a number"},
		{[]string{"--http=unix:x"}, "want HOST:PORT"},
		{[]string{"--volume=vol0"}, "want NAME:SIZE"},
		{[]string{"--volume=a/b:1G"}, `name "a/b"`},
		{[]string{"--volume=a@b:1G"}, `name "a@b"`},
		{[]string{"--volume=.a:1G"}, `name ".a"`},
		{[]string{"--volume=" + strings.Repeat("v", 64) + ":1G"}, "1 to 63"},
		{[]string{"--volume=v:0"}, "above zero"},
		{[]string{"--volume=v:1000"}, "multiple of 4 KiB"},
		{[]string{"--volume=v:1G", "--volume=v:2G"}, "named twice"},
		{[]string{"--device=a:0G"}, "above zero"},
		{[]string{"--device=a:0"}, "above zero"},
		{[]string{"--device=a:"}, "above zero"},
		{[]string{"--device=a:64XB"}, "64XB"},
		{[]string{"--device=a:12GB"}, "write GiB"},
		{[]string{"--device=:1G"}, "path is missing"},
		{[]string{"--device=a", "--device=./a"}, "named twice"},
		{[]string{"--segment-size=3MiB"}, "power of two"},
		{[]string{"--segment-size=2GiB"}, "power of two"},
		{[]string{"--segment-size=4KiB"}, "power of two"},
		{[]string{"--map-cache=1KiB"}, "at least 4MiB"},
		{[]string{"--tls=yes"}, "must be require, allow or off"},
		{[]string{"--tls=require"}, "needs a certificate"},
		{[]string{"--tls-cert=x"}, "belong together"},
		{[]string{"--tls-client-ca=x"}, "no effect"},
		{[]string{"--log-level=loud"}, "log-level"},
		{[]string{"--log-format=xml"}, "log-format"},
		{[]string{"--max-connections=0"}, "at least 1"},
	} {
		_, err := Load("", flags(t, tt.args...))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrUsage) {
			t.Errorf("%v: %v\nwant an ErrUsage with %q", tt.args, err, tt.want)
		}
	}
}

func TestDeviceSpec(t *testing.T) {
	for text, want := range map[string]DeviceSpec{
		"/dev/sdb": {"/dev/sdb", 0},
		"d0:4GiB":  {"d0", 4 * GiB},
		"/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0": {"/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0", 0},
		"/dev/x-0:1a":   {"/dev/x-0:1a", 0},
		"a:b:104857601": {"a:b", 104857601},
	} {
		got, err := ParseDeviceSpec(text)
		if err != nil || got != want {
			t.Errorf("ParseDeviceSpec(%q) = %v, %v; want %v", text, got, err, want)
			continue
		}
		if got.String() != text {
			t.Errorf("ParseDeviceSpec(%q).String() = %q", text, got.String())
		}
	}
}

func TestAddr(t *testing.T) {
	for text, local := range map[string]bool{
		"unix:/x": true, "127.0.0.1:1": true, "[::1]:1": true, "0.0.0.0:1": false, ":1": false, "[::]:1": false, "192.0.2.1:1": false,
	} {
		a, err := ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Local(t.Context()); err != nil || got != local {
			t.Errorf("%s: Local = %v, %v; want %v", text, got, err, local)
		}
		if a.String() != text {
			t.Errorf("%s: String = %s", text, a)
		}
	}
	a := Addr{"unix", "/tmp/a b/nbd.sock"}
	if got, want := a.URI("vol0", false), "nbd+unix:///vol0?socket=/tmp/a%20b/nbd.sock"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
}

func TestToken(t *testing.T) {
	path := writeConfig(t, "  0123456789abcdef\n")
	for given, want := range map[string]string{"": "", "@" + path: "0123456789abcdef", "a-token-in-the-clear": "a-token-in-the-clear"} {
		c := Config{HTTPToken: given}
		if got, err := c.Token(); err != nil || got != want {
			t.Errorf("token of %q = %q, %v; want %q", given, got, err, want)
		}
	}
	for _, given := range []string{"short", "@/nonexistent/file"} {
		c := Config{HTTPToken: given}
		if _, err := c.Token(); !errors.Is(err, ErrUsage) {
			t.Errorf("token of %q: %v, want an ErrUsage", given, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	text, _ := Default().TOML()
	f.Add(string(text))
	f.Add("mapcache = 1\n[tls]\ncert = 'x'\n")
	f.Add("volume = [\"a:1GiB\"]\n\"dir\" = 'x'\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		if err := c.Decode(text); err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatalf("error is no ErrUsage: %v", err)
			}
			return
		}
		if c.Validate() != nil {
			return
		}
		out, err := c.TOML()
		if err != nil {
			t.Fatal(err)
		}
		again := Default()
		if err := again.Decode(string(out)); err != nil {
			t.Fatalf("%v, of\n%s", err, out)
		}
	})
}

// TestWrongKind holds that a value of the wrong kind is told of in words of the file.
func TestWrongKind(t *testing.T) {
	for text, want := range map[string]string{
		"nbd = \"unix:x\"":       `wants a list`,
		"dir = 5":                `wants text in quotes, such as "x", and is a number`,
		"insecure = \"yes\"":     `wants true or false`,
		"max-connections = true": `wants a number, and is true or false`,
	} {
		if err := Default().Decode(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestPrintedConfig holds that every setting is shown, also a list with nothing in it.
func TestPrintedConfig(t *testing.T) {
	text, err := Default().TOML()
	if err != nil {
		t.Fatal(err)
	}
	for v, i := reflect.TypeFor[Config](), 0; i < v.NumField(); i++ {
		if key := v.Field(i).Tag.Get("toml"); !strings.Contains("\n"+string(text), "\n"+key+" = ") {
			t.Errorf("no %s in\n%s", key, text)
		}
	}
}
