package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lsad/internal/config"
)

// fetch gets what an lsad's admin socket answers to a path.
func (s *server) fetch(ctx context.Context, path string, to io.Writer) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.adminSocket())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lsad"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the server answered %s", path, resp.Status)
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// save is fetch into a file.
func (s *server) save(ctx context.Context, path, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := s.fetch(ctx, path, f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// metrics are the samples of an lsad's metrics, by their names with labels.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	var text strings.Builder
	if err := s.fetch(ctx, "/metrics", &text); err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text.String())); lines.Scan(); {
		line := lines.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
				all[line[:i]] = v
			}
		}
	}
	return all, nil
}

// metric is the value of one sample of an lsad's metrics, by its name with labels.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	all, err := s.metrics(ctx)
	if v, ok := all[name]; ok || err != nil {
		return v, err
	}
	return 0, fmt.Errorf("lsad has no metric %s", name)
}

// deviceFlags name four devices of lsad that hold so many bytes together.
func (b *bench) deviceFlags(total int64) ([]string, error) {
	const count = 4
	free, err := freeBytes(b.dir)
	if err != nil {
		return nil, err
	}
	// Others use the disk too.
	if most := free * 3 / 4; total > most {
		return nil, fmt.Errorf("%s has room for %s of devices, %s are needed: name another place with --dir, or less data",
			b.dir, config.Size(most), config.Size(total))
	}
	each := (config.Size(total)/count + config.GiB - 1) / config.GiB * config.GiB
	var flags []string
	for i := range count {
		flags = append(flags, "--device="+filepath.Join(b.dir, fmt.Sprintf("device%d", i))+":"+each.String())
	}
	return flags, nil
}
