package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/filesource"
	"lsad/kvmhook/localsource"
	"lsad/kvmhook/nbdsource"
	"lsad/server/admin"
)

// filePrefix marks an image that is a file.
const filePrefix = "file:"

// named says whether the image is one of a server's, by name.
func (k *hook) named() bool {
	return !nbdclient.IsURI(k.image) && !strings.HasPrefix(k.image, filePrefix)
}

// hookSource is where the image comes from.
type hookSource struct {
	kvmhook.Source
	stop   func()
	close  func() error
	status func() kvmhook.SourceStatus
}

// open connects to the source.
func (k *hook) open(ctx context.Context, cmd *cobra.Command, log *slog.Logger) (*hookSource, error) {
	if path, ok := strings.CutPrefix(k.image, filePrefix); ok {
		f, err := filesource.Open(path)
		if err != nil {
			return nil, err
		}
		return &hookSource{Source: f, stop: func() {}, close: f.Close, status: func() kvmhook.SourceStatus {
			return kvmhook.SourceStatus{Name: k.image}
		}}, nil
	}
	var to nbdclient.Target
	var err error
	if k.named() {
		to, err = k.local(ctx, cmd)
	} else if to, err = nbdclient.ParseURI(k.image); err != nil {
		err = config.Usagef("%v", err)
	}
	if err != nil {
		return nil, err
	}
	o := nbdsource.Options{Connections: k.connections, Timeout: k.timeout, Logger: log}
	n, err := nbdsource.Open(ctx, to, o)
	if err != nil {
		return nil, err
	}
	src := &hookSource{Source: n, stop: n.Stop, close: n.Close, status: func() kvmhook.SourceStatus {
		return kvmhook.SourceStatus{Name: k.image, OutageSeconds: n.Outage().Seconds(), Reconnects: n.Reconnects()}
	}}
	if k.named() {
		l := localsource.New(n, o, placesOf(k.client, k.image))
		over := src.status
		src.Source, src.close, src.status = l, l.Close, func() kvmhook.SourceStatus {
			st := over()
			st.DirectBytes = l.DirectBytes()
			return st
		}
	}
	return src, nil
}

// local is where the server on this machine exports the image.
func (k *hook) local(ctx context.Context, cmd *cobra.Command) (to nbdclient.Target, err error) {
	err = k.do(cmd, func(_ context.Context, c *admin.Client) error {
		k.client = c
		image, err := c.Image(ctx, k.image)
		if err != nil {
			return err
		}
		if err := hookDisks(cmd, image); err != nil {
			return err
		}
		if image.Writable && len(image.Clients) > 0 {
			return fmt.Errorf("%q is a fork that others have open (%s) and may write: disconnect them, or name an image", k.image, strings.Join(image.Clients, ", "))
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, text := range st.Listen.NBD {
			a, err := config.ParseAddr(text)
			if err == nil && (to.Network == "" || a.Network == "unix") {
				to = nbdclient.Target{Network: a.Network, Address: a.Address, Export: k.image}
			}
		}
		if to.Network == "" {
			return errors.New("the server listens for NBD nowhere")
		}
		return nil
	})
	return to, err
}
