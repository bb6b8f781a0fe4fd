package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"lsad/internal/config"
)

// hints prints what the server serves, and the exact commands to use it.
func (s *server) hints(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "lsad serves %s\n\n", strings.Join(s.served(), ", "))
	for _, l := range s.nbdOn {
		fmt.Fprintf(&b, "NBD at %v\n", addrOf(l))
	}
	for _, l := range s.httpOn {
		fmt.Fprintf(&b, "HTTP at %s (status at /, /metrics, /healthz)\n", s.httpURL(l))
	}
	fmt.Fprintf(&b, "Data in %s\n\nTry:\n", s.dir.path)
	for _, line := range s.commands() {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// served names the volumes, the first few of many.
func (s *server) served() []string {
	const few = 8
	var all []string
	for i, v := range s.volumes() {
		if i == few {
			return append(all, "and more")
		}
		all = append(all, fmt.Sprintf("volume %s of %s", v.Name, size(v.Size)))
	}
	if len(all) == 0 {
		return []string{"an array without volumes"}
	}
	return all
}

func (s *server) httpURL(l net.Listener) string {
	if s.overTLS(l) {
		return "https://" + reachable(addrOf(l)).Address
	}
	return "http://" + reachable(addrOf(l)).Address
}

// commands are what a user may want to run next. They work as printed.
func (s *server) commands() []string {
	var lines []string
	volumes := s.volumes()
	if len(volumes) > 0 && len(s.nbdOn) > 0 {
		lines = append(lines, s.clientCommands(volumes[0].Name)...)
	}
	where := ""
	if filepath.Clean(s.cfg.Dir) != filepath.Clean(config.DefaultDir) {
		where = " --dir " + quote(s.cfg.Dir)
	}
	lines = append(lines,
		program()+" status"+where,
		program()+" volume list"+where,
		program()+" volume create web 20GiB"+where,
	)
	if len(s.httpOn) > 0 {
		lines = append(lines, "curl "+s.httpURL(s.httpOn[0])+"/metrics")
	}
	return lines
}

func (s *server) clientCommands(volume string) []string {
	a := reachable(addrOf(s.nbdOn[0]))
	if s.cfg.TLSMode() == "require" {
		uri := a.URI(volume, true)
		join := "?"
		if strings.Contains(uri, "?") {
			join = "&"
		}
		return []string{"nbdinfo " + quoteURI(uri+join+"tls-certificates=DIR") + "   # DIR with ca-cert.pem, and client-cert.pem and client-key.pem if the server asks for them"}
	}
	uri := quoteURI(a.URI(volume, false))
	lines := []string{
		"nbdinfo " + uri,
		"qemu-img info " + uri,
		"nbdcopy " + uri + " " + quote(volume+".img") + "   # a copy; it reads no holes",
	}
	if a.Network == "unix" {
		return append(lines, "sudo nbd-client -unix "+quote(a.Address)+" /dev/nbd0 -N "+volume)
	}
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return lines
	}
	return append(lines, "sudo nbd-client "+host+" "+port+" /dev/nbd0 -N "+volume)
}

// quoteURI keeps the ? and & of a URI from the shell.
func quoteURI(uri string) string { return "'" + strings.ReplaceAll(uri, "'", "%27") + "'" }

// reachable is an address that a client on this machine can connect to: a listener on every interface says 0.0.0.0.
func reachable(a config.Addr) config.Addr {
	host, port, err := net.SplitHostPort(a.Address)
	if a.Network != "tcp" || err != nil {
		return a
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		a.Address = net.JoinHostPort("localhost", port)
	}
	return a
}
