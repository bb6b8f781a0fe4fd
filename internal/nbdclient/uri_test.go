package nbdclient

import (
	"errors"
	"strings"
	"testing"

	"lsad/internal/nbdproto"
)

func TestParseURI(t *testing.T) {
	tests := []struct {
		uri  string
		want Target
	}{
		{"nbd://host", Target{Network: "tcp", Address: "host:10809", Hostname: "host"}},
		{"nbd://host:1/a/b", Target{Network: "tcp", Address: "host:1", Export: "a/b", Hostname: "host"}},
		{"nbd://[::1]/x%20y", Target{Network: "tcp", Address: "[::1]:10809", Export: "x y", Hostname: "::1"}},
		{"nbd+unix:///vm?socket=/tmp/s", Target{Network: "unix", Address: "/tmp/s", Export: "vm"}},
		{"nbd+unix://?socket=rel/s", Target{Network: "unix", Address: "rel/s"}},
		{"nbds://host/e?tls-certificates=/pki", Target{Network: "tcp", Address: "host:10809", Export: "e", TLS: true, CertDir: "/pki", Hostname: "host"}},
		{"nbds+unix:///e?socket=/s&tls-hostname=h", Target{Network: "unix", Address: "/s", Export: "e", TLS: true, Hostname: "h"}},
	}
	for _, test := range tests {
		got, err := ParseURI(test.uri)
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; want %+v", test.uri, got, err, test.want)
		}
		if !IsURI(test.uri) {
			t.Errorf("%s does not look like an URI", test.uri)
		}
	}
	if IsURI("vm1") || IsURI("/dev/nbd0") {
		t.Error("a name looks like an URI")
	}
}

func TestParseURIRefuses(t *testing.T) {
	for uri, why := range map[string]string{
		"":                                     "scheme",
		"http://host/x":                        "scheme",
		"nbd:///x":                             "want nbd://HOST",
		"nbd://host/x?socket=/s":               "want nbd://HOST",
		"nbd+unix:///x":                        "want nbd+unix:///EXPORT",
		"nbd+unix://host/x?socket=/s":          "want nbd+unix:///EXPORT",
		"nbd://me@host/":                       "user names",
		"nbd://host/?tls-certificates=/x":      "certificates are for nbds",
		"nbds://host/?tls-psk-file=/x":         `"tls-psk-file" is not known`,
		"nbd+unix:///?socket=/a&socket=/b":     "one value",
		"nbd://%zz":                            "%zz",
		"nbd://h/" + strings.Repeat("a", 5000): "4096",
		"nbd+unix:///?socket=/" + strings.Repeat("a", 107): "107 bytes",
	} {
		if got, err := ParseURI(uri); !errors.Is(err, ErrURI) || !strings.Contains(err.Error(), why) {
			t.Errorf("%.40s: got %+v, %v; want an error with %q", uri, got, err, why)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("nbd+unix:///vm?socket=/tmp/s")
	f.Add("nbds://[::1]:10809/x?tls-hostname=a")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseURI(s)
		if err == nil && (got.Address == "" || got.Network == "" || len(got.Export) > nbdproto.MaxString) {
			t.Errorf("%q: %+v", s, got)
		}
	})
}
