package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lsad/internal/config"
)

// parseUnit reads a systemd unit as far as to its sections, keys and values.
func parseUnit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	section := ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" || strings.TrimSpace(key) != key {
				t.Fatalf("%s:%d: %q", name, i+1, line)
			}
			values[section+"."+key] = append(values[section+"."+key], value)
		}
	}
	return values
}

func TestUnits(t *testing.T) {
	service, socket := parseUnit(t, "lsad.service"), parseUnit(t, "lsad.socket")
	attach := parseUnit(t, "lsad-attach@.service")
	if got := attach["Service.ExecStart"]; len(got) != 1 || got[0] != "/usr/bin/lsad attach ${EXPORT} /dev/%I $OPTIONS" || attach["Service.Type"][0] != "notify" {
		t.Errorf("lsad-attach@ runs %q, of type %q", got, attach["Service.Type"])
	}
	for key, want := range map[string]string{
		"Service.ExecStart": "/usr/bin/lsad serve --config /etc/lsad/lsad.toml", // commands of cmd/lsad
		"Service.Type":      "notify",
		"Service.User":      "lsad",
	} {
		if got := service[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := socket["Socket.FileDescriptorName"]; len(got) != 1 || got[0] != "nbd" {
		t.Errorf("the socket is named %q", got)
	}
	if got := socket["Socket.Service"]; len(got) != 1 || got[0] != "lsad.service" {
		t.Errorf("the socket is of %q", got)
	}
}

// TestSystemdAnalyze has systemd's own parser look at the units, with a program that exists in place of lsad.
func TestSystemdAnalyze(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	for _, name := range []string{"lsad.service", "lsad.socket", "lsad-attach@.service"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), "/usr/bin/lsad", "/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dropIn, err := os.ReadFile("lsad-ublk.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "lsad.service.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lsad.service.d", "ublk.conf"), dropIn, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", "./lsad.service", "./lsad.socket", "./lsad-attach@nbd0.service")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	// Other units of this machine are loaded too, and may have faults of their own.
	complaint := regexp.MustCompile(`(?m)^.*lsad(-attach@nbd0)?\.(service|socket)[:,].*$`).FindString(string(out))
	if complaint != "" || err != nil && len(out) == 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestExampleSettings holds that the example is valid, as it is and with everything in it switched on, and that it
// has every setting there is.
func TestExampleSettings(t *testing.T) {
	if _, err := config.Load("lsad.toml", nil); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile("lsad.toml")
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^(?:# )?([a-z-]+) = `)
	var keys []string
	for _, m := range setting.FindAllStringSubmatch(string(text), -1) {
		keys = append(keys, m[1])
	}
	want := config.Keys()
	slices.Sort(keys)
	slices.Sort(want)
	if !slices.Equal(keys, want) {
		t.Errorf("the example has the keys\n%q, the settings are\n%q", keys, want)
	}
	all := setting.ReplaceAllString(string(text), "$1 = ")
	path := filepath.Join(t.TempDir(), "all.toml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path, nil); err != nil {
		t.Error(err)
	}
}
