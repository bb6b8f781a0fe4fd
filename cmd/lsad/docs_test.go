package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lsad/internal/config"
)

// operating is the text of docs/OPERATING.md.
func operating(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testedBlock is the block of commands with a name.
func testedBlock(t *testing.T, name string) string {
	t.Helper()
	_, after, ok := strings.Cut(operating(t), "<!-- tested: "+name+" -->\n```sh\n")
	block, _, ok2 := strings.Cut(after, "```")
	if !ok || !ok2 {
		t.Fatalf("OPERATING.md has no block %q", name)
	}
	return block
}

func TestOperatingSettings(t *testing.T) {
	var table strings.Builder
	for line := range strings.Lines(operating(t)) {
		if strings.HasPrefix(line, "| `") {
			name, _, _ := strings.Cut(line[2:], "|")
			table.WriteString(name)
		}
	}
	for _, key := range config.Keys() {
		if !strings.Contains(table.String(), "`"+key+"`") {
			t.Errorf("the setting %s is in no table", key)
		}
	}
}

// TestOperatingCommands parses each lsad command line of the page.
func TestOperatingCommands(t *testing.T) {
	found := 0
	line := regexp.MustCompile("(?m)^    (lsad .*)$|`(lsad [a-z][^`]*)`")
	for _, m := range line.FindAllStringSubmatch(operating(t), -1) {
		command, _, _ := strings.Cut(m[1]+m[2], " | ")
		command, _, _ = strings.Cut(command, " #") // a remark
		checkExample(t, strings.Fields(command)[1:])
		found++
	}
	if found < 20 {
		t.Errorf("only %d commands found", found)
	}
}

// TestOperatingBlocks runs the blocks of commands that the page says are tested, and looks for the metrics that it names.
func TestOperatingBlocks(t *testing.T) {
	oneByOne(t)
	needTool(t, "nbdcopy", "nbdinfo", "curl", "openssl", "qemu-io")
	dir := t.TempDir()
	mustSh(t, dir, testedBlock(t, "tls"))
	p := serveIn(t, dir, append(small, "--nbd=unix:lsad-data/nbd.sock", "--nbd=127.0.0.1:0",
		"--tls=allow", "--tls-cert=pki/server-cert.pem", "--tls-key=pki/server-key.pem", "--tls-client-ca=pki/ca-cert.pem")...)
	s := p.status()
	mustSh(t, dir, "nbdinfo 'nbds://"+s.Listen.NBD[1]+"/vol0?tls-certificates=pki'")

	path := "PATH='" + filepath.Dir(lsadBinary) + "':$PATH\nset -e\n"
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 9 1M 1M' "+uri("vol0"))
	mustSh(t, dir, path+testedBlock(t, "backup"))
	mustSh(t, dir, path+testedBlock(t, "restore"))
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 9 1M 1M' -c 'read -P 0 2M 1M' "+uri("restored"))
	if out := mustSh(t, dir, path+testedBlock(t, "api")); strings.Contains(out, `"error"`) || !strings.Contains(out, `"size_bytes": 1073741824`) {
		t.Errorf("the API answered\n%s", out)
	}

	body := get(t, "http://"+s.Listen.HTTP[0]+"/metrics")
	for _, name := range regexp.MustCompile(`lsad_[a-z_]+`).FindAllString(operating(t), -1) {
		if !strings.Contains(body, "\n# HELP "+name+" ") {
			t.Errorf("there is no metric %s", name)
		}
	}
	p.stop()
}
